"""What a name in a setting means among the names of a model's modules and parameters."""


def leads_to(name: str, whole: str) -> bool:
    """Whether a name is a module's (or a parameter's) whole name, or the end of it behind a dot, as in PEFT."""
    return whole == name or whole.endswith(f".{name}")
