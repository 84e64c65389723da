"""One document, one spelling, one hash. Keys and digests are made here and nowhere else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SCHEMA = 1
# So many letters of a hash are shown to people.
SHORT = 12


def canonical_json(document: Any) -> str:
    """Spell a document of plain JSON types in exactly one way.

    Raises TypeError for anything that is not a plain JSON type (a tuple, a path, a non-string name, a
    float that is not finite): nothing is dropped, pickled or `repr`ed to make a key.
    """
    _refuse_foreign_types(document, "$")
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def hash_document(document: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the key schema, the length and the text of the canonical document."""
    text = canonical_json(document).encode()
    return hashlib.sha256(b"tunemill-key-%d\n%d\n" % (SCHEMA, len(text)) + text).hexdigest()


def hash_listing(files: Mapping[str, str]) -> str:
    """SHA-256 (hex) of a folder, given relative path -> SHA-256 of the contents."""
    return hash_document({"files": dict(files)})


def _refuse_foreign_types(value: Any, where: str) -> None:
    if value is None or type(value) in (str, bool, int):
        return
    if type(value) is float:
        if value != value or value in (float("inf"), float("-inf")):
            raise TypeError(f"{where}: {value} cannot enter a key: it is not finite")
        return
    if type(value) is list:
        for index, item in enumerate(value):
            _refuse_foreign_types(item, f"{where}[{index}]")
        return
    if type(value) is dict:
        for name, item in value.items():
            if type(name) is not str:
                raise TypeError(f"{where}: the name {name!r} cannot enter a key: it is not a string")
            _refuse_foreign_types(item, f"{where}.{name}")
        return
    raise TypeError(f"{where}: a {type(value).__name__} cannot enter a key: only plain JSON types can")
