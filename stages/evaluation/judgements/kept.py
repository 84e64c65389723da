"""Answers of an endpoint that are kept by what was asked, so that nothing is asked twice: by no model, in no run.

What is kept is the answer to exactly this question. Whoever finds it there gets what asking would have given.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kept:
    """A folder of answers, one file each, named by the hash of all that was sent."""

    folder: Path

    def find(self, request: Mapping[str, Any]) -> str | None:
        """The answer to a request; None where it was never asked, or only half of a file is there."""
        try:
            found = json.loads(self._file(request).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return str(found["answer"])

    def keep(self, request: Mapping[str, Any], answer: str) -> None:
        """Keep an answer; another process that keeps the same at once does no harm."""
        file = self._file(request)
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_name(f"{file.name}.{os.getpid()}")
        text = json.dumps({"request": request, "answer": answer}, ensure_ascii=False, indent=1)
        written.write_text(text, encoding="utf-8")
        written.replace(file)

    def _file(self, request: Mapping[str, Any]) -> Path:
        text = json.dumps(request, sort_keys=True, ensure_ascii=True)
        name = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"
