"""Proof that a quantized model reads and writes the same tokens: tokenizer, chat template, special ids, config."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from tunemill.stages.errors import UserError
from tunemill.stages.models.files import VERSION_KEYS, tokenizer_files
from tunemill.stages.models.generation_body import GENERATION_FILE
from tunemill.stages.models.heads import head_of_config
from tunemill.stages.models.tokenizer_ids_body import check_same_tokenizer

# What quantizing writes into a config.json, and what loading adds to it.
WRITTEN = frozenset({"quantization_config", "_name_or_path", "dtype", "torch_dtype", *VERSION_KEYS})


def prove_words(source: Path, result: Path, asked_by: str = "quantization") -> None:
    """Compare everything beside the weights. Raises UserError, with the file or the key, where something differs.

    `asked_by`: the key that asks for the model, for the message.
    """
    before, after = ({p.relative_to(f): p for p in tokenizer_files(f)} for f in (source, result))
    for name in sorted({*before, *after}):
        if name not in after:
            raise _fault(asked_by, f"{name} is not there any more")
        if name not in before:
            raise _fault(asked_by, f"{name} is there, and was not")
        if before[name].read_bytes() != after[name].read_bytes():
            raise _fault(asked_by, f"{name} differs from the model's{_keys(before[name], after[name])}")
    stored, config = _config(source), _config(result)
    for key in sorted({*stored, *config}):
        if stored.get(key) != config.get(key):
            raise _fault(asked_by, f"config.json: {key} is {config.get(key)}, and was {stored.get(key)}")
    if (source / GENERATION_FILE).is_file() and head_of_config(_read(source / "config.json")) is None:
        _compare_generation(source, result, asked_by)
    check_same_tokenizer(source, result)


def _compare_generation(source: Path, result: Path, asked_by: str) -> None:
    if not (result / GENERATION_FILE).is_file():
        raise _fault(asked_by, f"{GENERATION_FILE} is not there any more")
    before, after = _read(source / GENERATION_FILE), _read(result / GENERATION_FILE)
    for key in sorted({*before, *after} - VERSION_KEYS):
        if before.get(key) != after.get(key):
            raise _fault(asked_by, f"{GENERATION_FILE}: {key} is {after.get(key)}, and was {before.get(key)}")


def _config(folder: Path) -> dict[str, Any]:
    """What transformers reads of a config.json, with all that it takes where nothing is said."""
    stored = AutoConfig.from_pretrained(folder).to_dict()
    return {key: _plain(value) for key, value in stored.items() if key not in WRITTEN}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items() if key not in WRITTEN}
    return value


def _keys(before: Path, after: Path) -> str:
    """Which keys of two JSON files differ, as an end of a sentence; nothing where they are none."""
    try:
        one, other = _read(before), _read(after)
    except (ValueError, UnicodeDecodeError):
        return ""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return ""
    keys = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    return f": {', '.join(keys[:3])}" if keys else ""


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _fault(asked_by: str, what: str) -> UserError:
    return UserError(
        f"{asked_by}: {what}. A quantized model keeps all of this: quantize the model again, and leave its files as "
        f"they are."
    )
