"""Whether a folder holds a tokenizer, going by the names of its files."""

import json
import re
from pathlib import Path

from tunemill.stages.artifacts import TEKKEN

# The files from which transformers makes one, of whichever class.
VOCABULARIES = re.compile(
    r"tokenizer\.json|tokenizer_config\.json|vocab\.\w+|merges\.txt|tekken\.json|.*\.(model|tiktoken|spm|bpe)"
)


def fault_of_folder(folder: Path) -> str | None:
    """Why no tokenizer can be loaded from a folder."""
    if not folder.is_dir():
        return f"{folder} is not a folder; base_model and tokenizer_config name folders, or models of the Hub"
    found = {path.name for path in folder.iterdir() if VOCABULARIES.fullmatch(path.name)}
    if found == {TEKKEN}:
        return (
            f"{folder} has a {TEKKEN} and no tokenizer.json: set tokenizer_use_mistral_common: true, or name a folder "
            "that has a tokenizer.json in tokenizer_config"
        )
    if found:
        return None
    return (
        f"{folder} holds no tokenizer (tokenizer.json, or another file of a vocabulary); put it there, or name a "
        "folder that has one in tokenizer_config"
    )


def fault_of_tekken(folder: Path) -> str | None:
    """Why mistral-common can make no tokenizer of a folder."""
    if (folder / TEKKEN).is_file():
        return None
    found = sorted(path.name for path in folder.glob("tokenizer.model*")) if folder.is_dir() else []
    also = f" ({found[0]} is one of sentencepiece, and those are not supported with it)" if found else ""
    return (
        f"{folder} holds no {TEKKEN}, of which mistral-common makes a tokenizer{also}. Name a folder that has one in "
        "tokenizer_config, or take tokenizer_use_mistral_common out, so that a tokenizer.json and a chat template are "
        "used"
    )


def vocabulary_of(folder: Path) -> frozenset[str] | None:
    """The tokens of a tokenizer.json, added ones too; None where there is no such file, or none like it."""
    try:
        stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = stored["model"]["vocab"]
        added = {token["content"] for token in stored.get("added_tokens", [])}
        # Unigram models have a list of tokens with their scores.
        tokens = vocabulary if isinstance(vocabulary, dict) else {token for token, _ in vocabulary}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return frozenset({*tokens, *added})
