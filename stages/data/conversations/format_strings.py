"""Format strings that a user writes: which names they may use."""

from collections.abc import Mapping, Sequence

from tunemill.stages.declaration import ConflictError


def check_format_strings(known: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    """Raise ConflictError where a text uses another name than those of its key: key -> (text, names)."""
    for key, (text, names) in known.items():
        try:
            text.format(**dict.fromkeys(names, ""))
        except (KeyError, IndexError, ValueError, AttributeError):
            spelt = " and ".join(f"{{{name}}}" for name in names)
            raise ConflictError(
                f"{key}: {text!r} is not a format string that uses {spelt} only; "
                "a brace that should stay is written twice",
                "type",
            ) from None
