"""The page of supported keys, made from the declarations."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic_core import PydanticUndefined

from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.config.tracker_config import TrackerConfig
from tunemill.pipelines.config.use_config import UseConfig
from tunemill.stages.declaration import RuntimeMark, SourceMark, StageConfig
from tunemill.stages.registry import STAGES

LOOKING = " (runtime)"
HEAD = """\
# Supported keys

Made by `tunemill schema --markdown`; a test holds it up to date. "Read by" names the stages that run again when
the key changes. A key that is only *runtime* there changes time or place, never a result: changing it runs
nothing. A *source* counts by its contents, not by its name.

| key | read by | default | what it does |
|---|---|---|---|
"""


def key_table() -> str:
    """Markdown: every key, who reads it, its default, what it does."""
    rows: dict[str, tuple[list[str], Any, str]] = {}
    readers_and_configs: list[tuple[str, type[StageConfig]]] = [
        ("graph", GraphConfig),
        ("trackers", TrackerConfig),
        ("use", UseConfig),
    ]
    readers_and_configs += [(stage.name, stage.config) for stage in STAGES]
    for reader, config in readers_and_configs:
        for key, field, mark in _fields(config):
            told = (field.get_default(call_default_factory=True), field.description)
            readers, *_ = rows.setdefault(key, ([], *told))
            text = f"{reader}{mark}"
            # Who only looks at a key says why; what it is says who is for it.
            if not mark and all(one.endswith(LOOKING) for one in readers):
                rows[key] = (readers, *told)
            if text not in readers:
                readers.append(text)
    lines = [
        f"| `{key}` | {', '.join(readers)} | {_default(default)} | {_cell(description)} |"
        for key, (readers, default, description) in sorted(rows.items())
    ]
    return HEAD + "\n".join(lines) + "\n"


def _fields(config: type[StageConfig]) -> Iterator[tuple[str, Any, str]]:
    spelled = [(key, name) for key, name in config.top_keys().items()]
    lists = config.entry_lists
    for group in lists[:1]:
        spelled += [(f"{group}[].{key}", name) for key, name in config.entry_keys(group).items()]
    for key, name in spelled:
        mark = LOOKING if name in config.marked(RuntimeMark) else ""
        mark = " (source)" if name in config.marked(SourceMark) else mark
        yield key, config.model_fields[name], mark


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None or value == [] or hasattr(value, "model_dump"):
        return ""
    text = json.dumps(value) if isinstance(value, str) and value != value.strip() else str(value)
    return f"`{text.lower() if isinstance(value, bool) else text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
