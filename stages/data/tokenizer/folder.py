"""Whether a folder holds a tokenizer, going by the names of its files."""

import json
import re
from pathlib import Path

# The files from which transformers makes one, of whichever class.
VOCABULARIES = re.compile(
    r"tokenizer\.json|tokenizer_config\.json|vocab\.\w+|merges\.txt|tekken\.json|.*\.(model|tiktoken|spm|bpe)"
)


def fault_of_folder(folder: Path) -> str | None:
    """Why no tokenizer can be loaded from a folder."""
    if not folder.is_dir():
        return f"{folder} is not a folder; base_model and tokenizer_config name folders, or models of the Hub"
    if any(VOCABULARIES.fullmatch(path.name) for path in folder.iterdir()):
        return None
    return (
        f"{folder} holds no tokenizer (tokenizer.json, or another file of a vocabulary); put it there, or name a "
        "folder that has one in tokenizer_config"
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
