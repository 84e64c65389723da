"""Whether a folder holds a tokenizer, going by the names of its files."""

import re
from pathlib import Path

# The files from which transformers makes one, of whichever class.
VOCABULARIES = re.compile(
    r"tokenizer\.json|tokenizer_config\.json|vocab\.\w+|merges\.txt|tekken\.json|.*\.(model|tiktoken|spm|bpe)"
)


def fault_of_folder(folder: Path) -> str | None:
    """Why no tokenizer can be loaded from a folder."""
    if not folder.is_dir():
        return f"{folder} is not a folder; base_model and tokenizer_config name local folders"
    if any(VOCABULARIES.fullmatch(path.name) for path in folder.iterdir()):
        return None
    return (
        f"{folder} holds no tokenizer (tokenizer.json, or another file of a vocabulary); put it there, or name a "
        "folder that has one in tokenizer_config"
    )
