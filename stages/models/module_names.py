"""What a name in a setting means among the names of a model's modules and parameters."""

from typing import Any


def leads_to(name: str, whole: str) -> bool:
    """Whether a name is a module's (or a parameter's) whole name, or the end of it behind a dot, as in PEFT."""
    return whole == name or whole.endswith(f".{name}")


def names_of_tensors(model: Any) -> dict[int, list[str]]:
    """Identity of each parameter -> every name that it has in the model; tied ones have several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names
