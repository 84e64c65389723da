"""The column of a prompt's row that has a good answer to it."""

GROUND_TRUTH = "ground_truth"
# The methods that compare completions with it, so that no row may lack it.
COMPARING = frozenset({"ebft"})


def fault_of_answer(value: object) -> str | None:
    """Why this is no answer that completions can be compared with; None where it is one."""
    if isinstance(value, str) and value.strip():
        return None
    return (
        f"completions are compared with its {GROUND_TRUTH}, a text, and there is "
        f"{'none' if value is None else repr(value)[:60]}. Add it to the rows, or make it with type: "
        f"my_module.function"
    )
