"""What a node's process is told: which body runs, with which settings, on which folders."""

from collections.abc import Mapping
from pathlib import Path

from tunemill.pipelines.graph.nodes import Node
from tunemill.resources.building import WorkFolders
from tunemill.resources.calls import Call, name_of
from tunemill.resources.store import Published
from tunemill.stages.errors import UserError
from tunemill.stages.report import Report, Workspace


def make_call(node: Node, inputs: Mapping[str, Published], building: WorkFolders, root: Path) -> Call:
    """The request of a node: names of the body and of the classes around it, and folders."""
    folders: dict[str, tuple[str, str | list[str] | None]] = {}
    for name, declared in node.stage.inputs.items():
        upstream = [str(inputs[up].data) for up in node.inputs.get(name, ())]
        one = upstream[0] if upstream else None
        folders[name] = (name_of(declared.artifact), upstream if declared.many else one)
    kept = {"kept": str(root / "kept" / node.stage.name)} if node.stage.keeps else {}
    return Call(
        body=node.stage.body,
        config_class=name_of(node.stage.config),
        config=node.config.model_dump(mode="json", exclude_unset=True),
        inputs=folders,
        workspace_class=name_of(Workspace),
        workspace={
            "data": str(building.data),
            "checkpoints": str(building.checkpoints),
            "logs": str(building.logs),
            **kept,
        },
        report_class=name_of(Report),
        user_error=name_of(UserError),
        processes=node.config.ranks,
    )
