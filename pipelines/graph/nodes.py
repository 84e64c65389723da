"""A pipeline as data: its nodes, in an order in which they can run. Nothing heavy; names no stage."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from tunemill.pipelines.config.document import Document
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.launcher_keys import GlobalBatch, LauncherSettings
from tunemill.pipelines.config.openlineage_keys import OpenLineage
from tunemill.pipelines.config.operation_keys import DefaultStatus, Schedule, Watch
from tunemill.pipelines.config.problems import Problem
from tunemill.pipelines.config.robust_keys import UNLIMITED, Limits
from tunemill.pipelines.config.sweep_points import Point
from tunemill.pipelines.config.tracker_config import TrackerConfig
from tunemill.pipelines.config.use_config import UseConfig
from tunemill.resources.shared_folder import SharedFolder
from tunemill.resources.targets import Target
from tunemill.stages.declaration import RuntimeMark, Stage, StageConfig, is_whole, listed
from tunemill.stages.evaluation.gate import Gate


@dataclass(frozen=True)
class Node:
    """One stage in one pipeline.

    `inputs` maps an input's name to upstream nodes (or `asset://` names), `places` a field of the config to
    the key that fed it. `about` is the dataset or the model of which the pipeline has one such node each. A name
    stands alone: Dagster shows it without its group.
    """

    name: str
    stage: Stage
    config: StageConfig
    inputs: Mapping[str, tuple[str, ...]]
    places: Mapping[str, KeyPath]
    about: str | None = None

    @cached_property
    def sources(self) -> dict[str, list[str]]:
        """What the config names whose contents enter the key, by field: absolute paths, and URLs."""
        runtime = set(self.config.marked(RuntimeMark)) - self.config.deciding()
        return {field: names for field, names in self.places_named.items() if field not in runtime}

    @cached_property
    def places_named(self) -> dict[str, list[str]]:
        """The same with what is only looked at, and changes no result."""
        named = {field: listed(getattr(self.config, field)) for field in sorted(self.config.sources())}
        whole = {field: [name for name in names if is_whole(name)] for field, names in named.items()}
        return {field: names for field, names in whole.items() if names}


@dataclass(frozen=True)
class Pipeline:
    """A graph; `nodes` are in an order in which they can run.

    `output_dir` gets links to models and evaluations, `prepared_path` one to the training data. `notes` are
    settings that ask for nothing here, and keys that were read under another name. `trackers` says where the figures
    of training go beside, `use` how a finished model is shown and served. `shared` is where prepared rows are pushed to
    and pulled from. `gates` are what evaluations are held to. `targets` are where the
    published model goes. `schedule`, `watch` and `automation` say what brings it up to date by itself, `limits` what
    becomes of stages that crash or hang, `owners` and `tags` who answers for it and what it is filed under.
    `openlineage` says where its runs are told, `store` which store a team shares. `point` is the point of a sweep
    that the pipeline is. `batch` is what goes into an optimizer step, where that is more than the keys of training say
    by themselves; `launcher` says which processes train.
    """

    name: str
    document: Document
    nodes: tuple[Node, ...]
    output_dir: Path | None
    prepared_path: Path | None
    notes: tuple[Problem, ...] = ()
    trackers: TrackerConfig | None = None
    shared: SharedFolder | None = None
    use: UseConfig | None = None
    gates: tuple[Gate, ...] = ()
    targets: tuple[Target, ...] = ()
    schedule: Schedule | None = None
    watch: Watch | None = None
    automation: DefaultStatus | None = None
    limits: Limits = UNLIMITED
    owners: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    openlineage: OpenLineage | None = None
    store: str | None = None
    point: Point | None = None
    batch: GlobalBatch | None = None
    launcher: LauncherSettings = field(default_factory=LauncherSettings)

    @property
    def grid(self) -> Path | None:
        """The YAML of the sweep that the pipeline is a point of, where its own does not name it."""
        return None if self.point is None else self.point.grid

    def data(self) -> "Pipeline":
        """The part that prepares data."""
        return replace(self, nodes=tuple(node for node in self.nodes if node.stage.prepares_data))

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)
