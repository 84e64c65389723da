"""Where in a YAML a value stands: the keys and indices that lead to it."""

KeyPath = tuple[str | int, ...]


def spell(path: KeyPath) -> str:
    """`("datasets", 0, "path")` as `datasets[0].path`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def lies_in(path: str, outer: str) -> bool:
    """Whether a key's path leads into another's value."""
    return path != outer and path.startswith((f"{outer}.", f"{outer}["))
