"""Running stages on small real data: workspaces, files of rows, and reading what a stage wrote."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunemill.stages.artifacts import Artifact, Tokenizer
from tunemill.stages.declaration import Stage, StageConfig
from tunemill.stages.report import Report, Workspace


@dataclass
class Events:
    """What a body said."""

    sent: list[dict[str, Any]] = field(default_factory=list)

    @property
    def summary(self) -> dict[str, Any]:
        """All summaries put together."""
        merged: dict[str, Any] = {}
        for event in self.sent:
            if event["type"] == "summary":
                merged |= event["metrics"]
        return merged

    @property
    def logs(self) -> str:
        return "\n".join(event["message"] for event in self.sent if event["type"] == "log")

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.sent if event["type"] == kind]


def make_workspace(folder: Path) -> Workspace:
    """An empty workspace below `folder`."""
    workspace = Workspace(folder / "data", folder / "checkpoints", folder / "logs")
    for part in (workspace.data, workspace.checkpoints, workspace.logs):
        part.mkdir(parents=True)
    return workspace


def run_stage(stage: Stage, config: StageConfig, folder: Path, **inputs: Any) -> tuple[Any, Events]:
    """Call a stage's body in this process. Returns its artifact and what it said."""
    events = Events()
    module, name = stage.body.split(":")
    workspace = make_workspace(folder)
    getattr(import_module(module), name)(config, **inputs, out=workspace, report=Report(events.sent.append))
    return stage.output(workspace.data), events


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_arrow(path: Path) -> list[dict[str, Any]]:
    """The rows of an Arrow IPC file."""
    rows: list[dict[str, Any]] = pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_pylist()
    return rows


def files_of(artifact: Artifact) -> dict[str, bytes]:
    """Relative path -> bytes: what the digest is made of."""
    return {
        str(path.relative_to(artifact.path)): path.read_bytes()
        for path in sorted(artifact.path.rglob("*"))
        if path.is_file()
    }


def trained_text(tokenizer: Tokenizer, row: dict[str, Any]) -> list[str]:
    """The trained pieces of a row as text, in order."""
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_file(str(tokenizer.path / "tokenizer.json"))
    pieces: list[list[int]] = []
    before = False
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        if label != -100 and not before:
            pieces.append([])
        before = label != -100
        if before:
            pieces[-1].append(token)
    return [backend.decode(piece, skip_special_tokens=False) for piece in pieces]
