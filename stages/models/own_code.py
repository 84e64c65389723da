"""The Python code that a model folder brings along: which files, and what is in them. Runs none of it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = "auto_map"
AUTO = "AutoModelForCausalLM"
DIGEST_LETTERS = 12


def code_files(folder: Path) -> list[Path]:
    """Every Python file of a model folder, sorted."""
    return sorted(path for path in folder.rglob("*.py") if path.is_file())


def digest_of(files: list[Path]) -> str:
    """What is in some files, in a few letters."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.name.encode() + b"\0" + path.read_bytes()).digest())
    return digest.hexdigest()[:DIGEST_LETTERS]


def foreign_code(stored: Mapping[str, Any]) -> str | None:
    """The entry of a config.json that names code in another repository (`owner/name--file.Class`), if there is one."""
    entries = stored.get(KEY) or {}
    texts = entries.values() if isinstance(entries, dict) else [entries]
    named = [item for text in texts for item in (text if isinstance(text, list) else [text])]
    return next((str(text) for text in named if isinstance(text, str) and "--" in text), None)
