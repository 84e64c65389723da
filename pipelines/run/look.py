"""A pipeline as it stands when somebody looks at it: what every node has, what the next run would do and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.plan import Planned, make_plan, node_ref
from tunemill.pipelines.graph.result_checks import Checked, checks_of, failed
from tunemill.pipelines.run.excerpt import Excerpts, excerpts
from tunemill.pipelines.run.record import Done, RunRecord, latest_records
from tunemill.resources.errors import StoreError
from tunemill.resources.store import Absent, Published, Store
from tunemill.stages.errors import UserError

# Among so many runs what a node had before is looked for.
LOOKED_BACK = 5


@dataclass(frozen=True)
class Look:
    """`plan` and `artifacts` by node; `problem` says why there is no plan, and `unreached` why the team's store
    may have more than is shown. `records` are those of the last runs. Of what only the team has there is no file.
    """

    pipeline: Pipeline
    plan: Mapping[str, Planned]
    artifacts: Mapping[str, Published]
    excerpts: Excerpts
    records: Sequence[RunRecord]
    problem: str | None = None
    unreached: str | None = None

    @property
    def last(self) -> RunRecord | None:
        """The last run that computed anything, else the last one."""
        return next((one for one in self.records if one.named("computed")), next(iter(self.records), None))

    @property
    def failed_checks(self) -> list[Checked]:
        """What a person has to look at, of the checks of everything that is there."""
        return failed(
            checked
            for node in self.pipeline.nodes
            if node.name in self.artifacts
            for checked in checks_of(node.name, node.stage, self.artifacts[node.name].manifest["metrics"])
        )

    def causes(self, node: str) -> dict[str, tuple[str, ...]]:
        """The nodes because of which a node will be computed, each with its own reasons: itself, or some upstream."""
        found: dict[str, tuple[str, ...]] = {}
        seen, pending = {node}, [node]
        while pending:
            item = self.plan.get(pending.pop(0))
            if item is None or item.state != "run":
                continue
            if item.key is not None:
                found[item.node.name] = item.reasons
                continue
            ups = [name for name in upstream_of(item.node) if name not in seen]
            seen.update(ups)
            pending += ups
        return found

    def before(self, node: str) -> Mapping[str, object]:
        """The figures that a node had before the ones of now; nothing where no run tells."""
        old = self._done_before(node)
        return {} if old is None else old.figures

    def artifact_before(self, node: str, store: Store) -> Published | None:
        """What a node had before, if it is still in the store."""
        old = self._done_before(node)
        found = None if old is None or old.place is None else store.lookup(*old.place)
        return found if isinstance(found, Published) and not found.elsewhere else None

    def _done_before(self, node: str) -> Done | None:
        now = self.artifacts.get(node)
        olds = (record.nodes[node] for record in self.records if node in record.nodes)
        others = (old for old in olds if old.digest is not None and (now is None or old.digest != now.digest))
        return next(others, None)


def look(pipeline: Pipeline, store: Store) -> Look:
    """Look at a pipeline. What is wrong with its sources or pins, or a server of it, is told, not raised."""
    problem, unreached = None, list[str]()
    store = store.forgiving(unreached.append)
    try:
        plan = {item.node.name: item for item in make_plan(pipeline, store)}
    except (ConfigError, StoreError, UserError) as error:
        plan, problem = {}, str(error)
    found = {node.name: _artifact(pipeline, node, plan.get(node.name), store) for node in pipeline.nodes}
    artifacts = {name: artifact for name, artifact in found.items() if artifact is not None}
    records = list(islice(latest_records(store, pipeline.name), LOOKED_BACK))
    shown = excerpts(pipeline, store, artifacts)
    return Look(pipeline, plan, artifacts, shown, records, problem, next(iter(unreached), None))


def _artifact(pipeline: Pipeline, node: Node, item: Planned | None, store: Store) -> Published | None:
    """What the node has now: what the YAML asks for, or else what it had last."""
    if item is not None and item.cached is not None:
        found: Published | Absent | None = item.cached
    else:
        ref = node_ref(pipeline, node, store)
        found = None if ref is None else store.lookup(ref.stage, ref.key)
    return found if isinstance(found, Published) else None
