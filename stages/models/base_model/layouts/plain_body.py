"""Writing weights that are made one tensor at a time, as a model folder with plain numbers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import save_file

from tunemill.stages.models.files import INDEX_FILE, SINGLE_FILE, copy_file
from tunemill.stages.models.generation_body import GENERATION_FILE
from tunemill.stages.report import Report

# A shard is written when it has so many bytes, so that no more than this and one tensor are in memory.
SHARD_BYTES = 4_000_000_000


class Weights(Protocol):
    """The tensors of a model by name, each made when it is asked for."""

    @property
    def names(self) -> Sequence[str]:
        """Every tensor of the model, as transformers names it."""

    def read(self, name: str) -> Any:
        """The tensor, as plain numbers."""


def write_plain(
    weights: Weights, settings: Mapping[str, Any], source: Path, target: Path, report: Report
) -> None:
    """Write a model folder: `weights`, the config.json `settings`, and what `source` says of generating."""
    target.mkdir(parents=True, exist_ok=True)
    shards: list[list[str]] = [[]]
    held: dict[str, Any] = {}
    for done, name in enumerate(weights.names):
        held[name] = weights.read(name).contiguous()
        if sum(tensor.nbytes for tensor in held.values()) >= SHARD_BYTES:
            _write(held, target, shards)
            shards.append([])
        report.progress(done + 1, len(weights.names), "tensors")
    if held:
        _write(held, target, shards)
    _name(target, [names for names in shards if names])
    (target / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if (source / GENERATION_FILE).is_file():
        copy_file(source / GENERATION_FILE, target / GENERATION_FILE)


def _unfinished(target: Path, number: int) -> Path:
    return target / f"unfinished-{number}"


def _write(held: dict[str, Any], target: Path, shards: list[list[str]]) -> None:
    save_file(held, _unfinished(target, len(shards) - 1), metadata={"format": "pt"})
    shards[-1] += sorted(held)
    held.clear()


def _name(target: Path, shards: list[list[str]]) -> None:
    """How many there are is known when the last one is written."""
    if len(shards) == 1:
        _unfinished(target, 0).replace(target / SINGLE_FILE)
        return
    file_of: dict[str, str] = {}
    for number, names in enumerate(shards):
        file_name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        path = _unfinished(target, number).replace(target / file_name)
        file_of |= dict.fromkeys(names, path.name)
    index = {"metadata": {}, "weight_map": dict(sorted(file_of.items()))}
    (target / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
