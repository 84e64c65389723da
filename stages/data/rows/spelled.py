"""Values as they are written in a YAML, in one line. No heavy imports."""

import json
import re
from collections.abc import Mapping
from typing import Any

PLAIN = re.compile(r"(?:[A-Za-z_/]|\.{1,2}/)[A-Za-z0-9_./-]*")
# Words that YAML, in any version, reads as something else than text.
TAKEN = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
# What JSON leaves as it is and YAML does not take, or takes for the end of a line.
UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def spelled(value: Any) -> str:
    """A text, number, boolean, list or mapping as YAML in one line. Texts are quoted where they have to be."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{spelled(key)}: {spelled(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(spelled, value)) + "]"
    if isinstance(value, str):
        return value if PLAIN.fullmatch(value) and value.lower() not in TAKEN else _quoted(value)
    return json.dumps(value)


def _quoted(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def spelled_keys(keys: Mapping[str, Any]) -> str:
    """Keys of a dataset's entry for a sentence: `type: x` with `field: y`."""
    parts = [f"`{key}: {spelled(value)}`" for key, value in keys.items()]
    if "type" not in keys:
        parts.insert(0, "no `type`")
    rest = " and ".join([", ".join(parts[1:-1])] * (len(parts) > 2) + parts[-1:])
    return parts[0] if len(parts) == 1 else f"{parts[0]} with {rest}"
