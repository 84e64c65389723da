"""A call of a stage's body: one JSON document, which any process can carry out."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Sink = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Nodes:
    """Several machines, each of which starts as many of a call's processes: this is number `rank` of `count`, from 0.

    `rendezvous`: HOST:PORT of the first, where they meet. `key`: what they compute, which must be the same on all.
    """

    count: int
    rank: int
    rendezvous: str
    key: str


@dataclass(frozen=True)
class Ray:
    """The Ray cluster whose workers are a call's processes: its address (None: as Ray finds it), what it sets aside for
    each (empty: a CPU, and a GPU where it has some), and the name of the run there.
    """

    address: str | None
    resources: Mapping[str, float]
    name: str


@dataclass(frozen=True)
class Call:
    """What to run. Classes and functions are named `module:name`; `inputs` maps name -> (class, folders).

    Folders are a string, a list of strings for `many`, or None for an absent optional input. A call that may take no
    more than `seconds` is stopped then; `limit` says who wants that. With several `processes` the body runs in each of
    them (resources/ranks.py): of this machine, of several `nodes`, or of a `ray` cluster (resources/workers.py). One
    that stands still for `hangs_after` seconds while others wait for it ends all; 0: none does.
    """

    body: str
    config_class: str
    config: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, str | list[str] | None]]
    workspace_class: str
    workspace: Mapping[str, str]
    report_class: str
    user_error: str
    seconds: float | None = None
    limit: str = ""
    processes: int = 1
    hangs_after: float = 20.0
    nodes: Nodes | None = None
    ray: Ray | None = None

    @property
    def here(self) -> int:
        """How many of the processes this machine starts."""
        return self.processes if self.nodes is None else self.processes // self.nodes.count


def call_of(document: Mapping[str, Any]) -> Call:
    """The call of its JSON."""
    nodes, ray = document["nodes"], document["ray"]
    parts = {"nodes": nodes and Nodes(**nodes), "ray": ray and Ray(**ray)}
    return Call(**{**document, **parts})


def name_of(item: Any) -> str:
    """The `module:name` of a class or function."""
    return f"{item.__module__}:{item.__qualname__}"


def named(name: str) -> Any:
    """The class or function of a name."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def execute(call: Call, sink: Sink) -> None:
    """Run the body here, whatever process this is."""
    body = named(call.body)
    config = named(call.config_class).model_validate(call.config)
    inputs: dict[str, Any] = {}
    for name, (class_name, folders) in call.inputs.items():
        artifact = named(class_name)
        match folders:
            case None:
                inputs[name] = None
            case str():
                inputs[name] = artifact(Path(folders))
            case _:
                inputs[name] = [artifact(Path(folder)) for folder in folders]
    workspace = named(call.workspace_class)(**{name: Path(path) for name, path in call.workspace.items()})
    body(config, **inputs, out=workspace, report=named(call.report_class)(sink))
