"""Writing the merged weights: a copy of each shard of the base, with the changed tensors overwritten in place."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tunemill.stages.errors import UserError
from tunemill.stages.models.dequantize_body import StoredBase
from tunemill.stages.models.files import INDEX_FILE, copy_file, model_files, weight_files
from tunemill.stages.models.merged.adapter_body import Change
from tunemill.stages.models.ties_body import untie_config
from tunemill.stages.models.weights import StoredTensor, sort_header, tensors_of_model
from tunemill.stages.report import Report


def fold(
    base: Path, frozen: StoredBase | None, changes: Mapping[str, Change], target: Path, report: Report
) -> int:
    """Copy the base's config, index and shards, and change what the adapter changes. At most one tensor of the
    base is in memory at a time, and what does not change shares its blocks where the file system can. What is
    quantized in `frozen` is taken from there.

    Returns how many tensors the adapter made different. Raises UserError where it names a tensor that the base
    does not have.
    """
    stored = tensors_of_model(base)
    missing = sorted(set(changes) - set(stored))
    if missing:
        raise UserError(
            f"adapter: {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}: not in the base model's files. "
            f"The adapter belongs to another base model, or its files use other names than transformers."
        )
    shards = weight_files(base)
    for path in model_files(base):
        if path not in shards:
            copy_file(path, target / path.name)
    quantized = frozenset() if frozen is None else frozen.quantized
    assert quantized <= stored.keys(), f"not in the base: {sorted(quantized - stored.keys())[:3]}"
    written = quantized | changes.keys()
    changed = 0
    for done, shard in enumerate(shards):
        copy_file(shard, target / shard.name)
        here = {name: tensor for name, tensor in stored.items() if tensor.file == shard and name in written}
        changed += _overwrite(shard, target / shard.name, here, frozen, changes)
        report.progress(done + 1, len(shards), "shards")
    return changed


def _overwrite(
    source: Path,
    target: Path,
    stored: Mapping[str, StoredTensor],
    frozen: StoredBase | None,
    changes: Mapping[str, Change],
) -> int:
    changed = 0
    with safe_open(source, framework="pt") as reader, target.open("r+b") as writer:
        for name, place in stored.items():
            plain = reader.get_tensor(name)
            old = frozen.read(name) if frozen is not None and name in frozen.quantized else plain
            assert old.shape == plain.shape, f"{name}: {tuple(old.shape)} against {tuple(plain.shape)}"
            # Rounded once, after the change: 8-bit weights come back as float32.
            new = (changes[name].apply(old) if name in changes else old).to(plain.dtype)
            data = new.contiguous().view(-1).view(torch.uint8).numpy()
            assert data.nbytes == place.size, f"{name}: {data.nbytes} bytes in place of {place.size}"
            writer.seek(place.start)
            writer.write(data.data)
            changed += not torch.equal(old.to(plain.dtype), new)
    return changed


def untie(base: Path, target: Path, embedding: str, head: str, head_change: Change | None) -> None:
    """Give the output head weights of its own, where the adapter changed head and embeddings differently.

    In the base both are one tensor, stored as `embedding`; PEFT trains them apart. `head` is added to the shard
    that holds the embeddings, and the config no longer ties them.
    """
    place = tensors_of_model(base)[embedding]
    with safe_open(place.file, framework="pt") as reader:
        old = reader.get_tensor(embedding)
    shard = target / place.file.name
    with safe_open(shard, framework="pt") as reader:
        metadata = reader.metadata()
        tensors: dict[str, Any] = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
    tensors[head] = (old if head_change is None else head_change.apply(old)).clone()
    save_file(tensors, shard, metadata=metadata)
    sort_header(shard)
    untie_config(target / "config.json")
    index = target / INDEX_FILE
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        content["weight_map"][head] = shard.name
        if "total_size" in content.get("metadata", {}):
            content["metadata"]["total_size"] += place.size
        index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
