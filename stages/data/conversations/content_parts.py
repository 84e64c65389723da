"""Texts that say of their characters whether they are trained on: content parts, and ranges of characters."""

from collections.abc import Sequence
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Part

TEXT_KEYS = ("text", "content", "value")
FLAG_KEYS = ("train", "weight")


def joined_parts(content: Sequence[Any], where: str, inherited: bool) -> tuple[str, tuple[Part, ...]]:
    """The parts' texts joined; and the parts, unless none has a flag of its own.

    A part without a flag is trained on as the message is, which `inherited` says.
    """
    texts: list[str] = []
    parts: list[Part] = []
    position = 0
    flagged = False
    for number, part in enumerate(content, 1):
        text, flag = read_part(part, f"{where}: part {number}")
        if text:
            parts.append(Part(position, position + len(text), inherited if flag is None else flag))
        texts.append(text)
        position += len(text)
        flagged = flagged or flag is not None
    return "".join(texts), tuple(parts) if flagged else ()


def chunks(content: Sequence[Any], where: str) -> list[dict[str, Any]]:
    """The parts as mistral-common takes them: texts, and reasoning, which may be without its end (`closed: false`)."""
    return [_chunk(part, f"{where}: part {number}") for number, part in enumerate(content, 1)]


def _chunk(part: Any, where: str) -> dict[str, Any]:
    if not isinstance(part, dict) or part.get("type") != "thinking":
        return {"type": "text", "text": read_part(part, where)[0]}
    if not isinstance(part.get("thinking"), str):
        raise BadRowError(f"{where} has no text in 'thinking': {part!r:.60}")
    closed = part.get("closed")
    return {"type": "thinking", "thinking": part["thinking"]} | (
        {} if closed is None else {"closed": read_flag(closed, f"{where}: 'closed'")}
    )


def has_flags(content: Sequence[Any]) -> bool:
    """Whether one of the parts says of itself whether it is trained on."""
    return any(isinstance(part, dict) and part.get(key) is not None for part in content for key in FLAG_KEYS)


def read_part(part: Any, where: str) -> tuple[str, bool | None]:
    """Text of a content part, and whether it says of itself that it is trained."""
    if isinstance(part, str):
        return part, None
    if not isinstance(part, dict):
        raise BadRowError(f"{where} is neither text nor an object: {part!r:.60}")
    if part.get("type", "text") != "text":
        raise BadRowError(f"{where} is of type {part['type']!r}, which is not supported yet; only text is")
    text = next((part[key] for key in TEXT_KEYS if isinstance(part.get(key), str)), None)
    if text is None:
        raise BadRowError(f"{where} has no text: {part!r:.60}")
    key = next((key for key in FLAG_KEYS if part.get(key) is not None), None)
    return text, None if key is None else read_flag(part[key], f"{where}: {key!r}")


def read_flag(value: Any, where: str) -> bool:
    """A training flag. Raises BadRowError for anything but true and false, 1 and 0."""
    if value in (0, 1):
        return bool(value)
    raise BadRowError(f"{where} must be true or false, not {value!r:.60}")


def read_details(value: Any, where: str) -> tuple[Part, ...]:
    """Ranges of characters; `end_offset` names the last one, `Part.end` the one after it."""
    try:
        return tuple(
            Part(int(item["begin_offset"]), int(item["end_offset"]) + 1, bool(item["train"]))
            for item in value
        )
    except (TypeError, KeyError, ValueError):
        raise BadRowError(
            f"{where}: training details must be a list of objects with begin_offset, end_offset and train, "
            f"not {value!r:.60}"
        ) from None
