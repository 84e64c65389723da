"""Which files make a model folder, and copying them as cheaply as the file system allows."""

import errno
import json
import os
import shutil
from pathlib import Path

from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.stages.artifacts import TOKENIZER_FACTS
from tunemill.stages.models.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
MODEL_FILES = frozenset({"config.json", "generation_config.json", INDEX_FILE})
ADAPTER_FILES = frozenset({ADAPTER_CONFIG, ADAPTER_WEIGHTS})
# What transformers and PEFT write of themselves: a library's patch release would change the bytes.
VERSION_KEYS = frozenset({"transformers_version", "peft_version"})

# What copy_file_range answers where it cannot work: other file system, old kernel, no such call.
_NO_RANGE_COPY = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM})


def copy_file(source: Path, target: Path) -> None:
    """Copy one file's bytes; on file systems that can share blocks no data moves.

    The target gets default permissions: artifacts are read-only, what is copied from them is not yet.
    """
    with source.open("rb") as reader, target.open("wb") as writer:
        left = os.fstat(reader.fileno()).st_size
        try:
            while left:
                done = os.copy_file_range(reader.fileno(), writer.fileno(), left)
                if not done:
                    break
                left -= done
        except OSError as error:
            if error.errno not in _NO_RANGE_COPY:
                raise
        if left:
            reader.seek(0)
            writer.seek(0)
            shutil.copyfileobj(reader, writer, 1 << 20)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors shards of a model folder that are there, sorted by name.

    The index says which they are, then the usual name: the same weights may lie beside them in another layout.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return sorted(folder / name for name in named if (folder / name).is_file())
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    return sorted(path for path in folder.glob("*.safetensors") if path.name not in ADAPTER_FILES)


def model_files(folder: Path) -> list[Path]:
    """Config, generation config, index and shards of a model folder."""
    named = [folder / name for name in sorted(MODEL_FILES) if (folder / name).is_file()]
    return [*named, *weight_files(folder)]


def tokenizer_files(folder: Path) -> list[Path]:
    """Everything in a model, adapter or tokenizer folder that is neither weights nor their description, nor our own."""
    other = {path.name for path in model_files(folder)} | ADAPTER_FILES | {LINEAGE_FILE, TOKENIZER_FACTS}
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in other and path.suffix != ".safetensors"
    )


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer, with its chat template, out of one folder into another."""
    for path in tokenizer_files(source):
        copied = target / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copy_file(path, copied)


def forget_versions(folder: Path) -> None:
    """Take the writing library's version out of the configs that it saved in `folder`; other keys stay in order."""
    for name in ("config.json", "generation_config.json", "adapter_config.json"):
        if (folder / name).is_file():
            forget_version(folder / name)


def forget_version(path: Path) -> None:
    """The same for one file; one that names no version stays as it is."""
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in VERSION_KEYS}
    if kept != config:
        path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
