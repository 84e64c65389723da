"""How much memory the trainings and the teacher of a pipeline will take: each is estimated in a process of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.nodes import Node
from tunemill.pipelines.graph.plan import Planned, upstream_asset
from tunemill.resources.calls import Call, name_of
from tunemill.resources.errors import LaunchError
from tunemill.resources.launcher import Launcher, in_child
from tunemill.resources.store import Published, Store
from tunemill.stages.errors import UserError
from tunemill.stages.memory import Above, Estimate, read_estimate, write_above
from tunemill.stages.registry import MEMORY
from tunemill.stages.report import Report, Workspace


def estimates(
    planned: Sequence[Planned], store: Store, launch: Launcher = in_child
) -> dict[str, Estimate | str]:
    """The estimate of each node that trains or teaches, or in words why there is none."""
    found: dict[str, Estimate | str] = {}
    for item in planned:
        if item.node.stage.name in MEMORY and not item.left_alone:
            found[item.node.name] = _estimate(item.node, above(item.node, planned, store), launch)
    return found


def above(node: Node, planned: Sequence[Planned], store: Store) -> dict[str, Above]:
    """Every node that this one is made from, by its stage, and by the stage that takes it with the input's name."""
    by_name = {item.node.name: item for item in planned}
    found: dict[str, Above] = {}

    def collect(below: Node) -> None:
        for name, upstreams in below.inputs.items():
            for upstream in upstreams:
                edge = f"{below.stage.name}.{name}"
                if upstream.startswith(ASSET_SCHEME):
                    there = upstream_asset(upstream, store)
                    if isinstance(there, Published):
                        found[edge] = Above({}, str(there.data))
                    continue
                item = by_name[upstream]
                folder = str(item.cached.data) if item.cached else None
                found[item.node.stage.name] = Above(item.node.config.model_dump(mode="json"), folder)
                found[edge] = found[item.node.stage.name]
                collect(item.node)

    collect(node)
    return found


def _estimate(node: Node, nodes_above: Mapping[str, Above], launch: Launcher) -> Estimate | str:
    with TemporaryDirectory(prefix="tunemill-memory-") as made:
        places = {name: Path(made) / name for name in ("data", "checkpoints", "logs")}
        for place in places.values():
            place.mkdir()
        write_above(places["data"], nodes_above)
        try:
            launch(_call(node, places), _ignore)
        except LaunchError as error:
            # A plan does not fail because one of its figures cannot be told.
            return str(error) if error.user else f"it could not be estimated: {str(error).splitlines()[-1]}"
        return read_estimate(places["data"])


def _call(node: Node, places: Mapping[str, Path]) -> Call:
    return Call(
        body=MEMORY[node.stage.name],
        config_class=name_of(node.stage.config),
        config=node.config.model_dump(mode="json", exclude_unset=True),
        inputs={},
        workspace_class=name_of(Workspace),
        workspace={name: str(place) for name, place in places.items()},
        report_class=name_of(Report),
        user_error=name_of(UserError),
    )


def _ignore(_event: object) -> None:
    """An estimate says all in its file."""
