"""How many positions a model has a table of, and rows that are longer than that."""

from typing import Any

from torch import nn

from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.report import Report


def table_of_positions(model: Any) -> int | None:
    """Length of the model's table of positions, learned or computed once; None where it takes rows of any length.

    Some tables begin with rows that stand for no position (`offset`).
    """
    longest = stated_positions(model)
    words = model.get_input_embeddings()
    if longest is None:
        return None
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module is not words:
            offset = getattr(module, "offset", 0)
            if module.num_embeddings - (offset if isinstance(offset, int) else 0) == longest:
                return longest
    tables = (b for name, b in model.named_buffers() if name.rpartition(".")[2] == "embed_positions")
    return longest if any(table.ndim == 2 and len(table) == longest for table in tables) else None


def stated_positions(model: Any) -> int | None:
    """Tokens that the model was made for, by its config."""
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    # XLNet says -1 for no limit.
    return longest if isinstance(longest, int) and longest > 0 else None


def check_context(model: Any, context: int, key: str) -> None:
    """Raises SettingError where a model has a table of fewer positions than are asked for."""
    table = table_of_positions(model)
    if table is not None and context > table:
        raise SettingError(
            f"{key}: {context}: {type(model).__name__} has a table of {table} positions. Use at most {table}."
        )


def check_positions(model: Any, longest: int, which: str, report: Report) -> None:
    """Raises UserError where the longest row has no position for its last tokens.

    A model that computes positions takes longer rows than it was made for, and is worse on them: that is said.
    """
    table, stated = table_of_positions(model), stated_positions(model)
    if table is not None and longest > table:
        raise UserError(
            f"{which}: the longest row has {longest} tokens, and {type(model).__name__} has a table of {table} "
            f"positions. Set sequence_len to at most {table}, or drop the long rows."
        )
    if stated is not None and longest > stated:
        report.log(
            f"{which}: the longest row has {longest} tokens, and the model was made for {stated} "
            f"(max_position_embeddings)"
        )
