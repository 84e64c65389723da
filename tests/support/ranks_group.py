"""What the processes of one launch said and wrote."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tunemill.resources.calls import Call, name_of
from tunemill.resources.errors import LaunchError
from tunemill.resources.launcher import in_child, in_this_process
from tunemill.stages.declaration import StageConfig
from tunemill.stages.errors import UserError
from tunemill.stages.report import Report, Workspace


class Group:
    """One launch of a body that trains cases, in so many processes."""

    def __init__(
        self, folder: Path, processes: int, body: str, config: type[StageConfig], **settings: Any
    ) -> None:
        self.folder = folder
        self.events: list[dict[str, Any]] = []
        self.error: LaunchError | None = None
        folders = {name: folder / name for name in ("data", "checkpoints", "logs")}
        for one in folders.values():
            one.mkdir(parents=True, exist_ok=True)
        call = Call(
            body=body,
            config_class=name_of(config),
            config={"processes": processes, **settings},
            inputs={},
            workspace_class=name_of(Workspace),
            workspace={name: str(one) for name, one in folders.items()},
            report_class=name_of(Report),
            user_error=name_of(UserError),
            processes=processes,
        )
        try:
            (in_child if processes > 1 else in_this_process)(call, self.events.append)
        except LaunchError as error:
            self.error = error

    def losses(self, case: str) -> dict[int, float]:
        """Of each step."""
        (table,) = [event for event in self.events if event["type"] == "table" and event["title"] == case]
        return dict(map(tuple, table["rows"]))

    def said(self, name: str) -> Any:
        """A figure of the summary."""
        return next(
            event["metrics"][name]
            for event in self.events
            if event["type"] == "summary" and name in event["metrics"]
        )

    def weights(self, case: str) -> dict[str, Any]:
        """What the first process has written."""
        (file,) = (self.folder / "checkpoints" / case / "rank_0" / "data").glob("*.safetensors")
        found: dict[str, Any] = load_file(file)
        return found

    def kept(self, case: str) -> Path:
        """The folder of a case's checkpoints."""
        return self.folder / "checkpoints" / case / "shared" / "checkpoints"
