"""Rows of embeddings and output head that nobody has trained, and what is put there."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from tunemill.stages.errors import SettingError

# No value of a row that was ever trained is as near to zero.
NEAR_ZERO = 1e-16


@dataclass(frozen=True)
class Filled:
    """The tokens whose rows were filled: in the embeddings, and in a head of its own."""

    embedding: list[int]
    head: list[int]


def fill_untrained(model: Any, tokens: int, asked: Collection[int] | None, kept: Collection[int]) -> Filled:
    """Put the mean of the other tokens' rows into those of the tokens `asked`; None: of those that are untrained.

    `tokens` is how many tokens there are: rows behind them belong to none. Rows of `kept` tokens are never looked for.
    A tied head is the embeddings, and is filled with them.
    """
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    untrained = near_zero(embedding[:tokens])
    rows = sorted(untrained - set(kept) if asked is None else set(asked))
    fill(embedding, tokens, rows, untrained)
    if head is None or head.weight is embedding:
        return Filled(rows, [])
    odd = near_zero(head.weight[:tokens]) | alike(head.weight, untrained)
    rows_of_head = sorted(odd - set(kept) if asked is None else set(asked))
    fill(head.weight, tokens, rows_of_head, odd)
    return Filled(rows, rows_of_head)


def near_zero(rows: Any) -> set[int]:
    """The numbers of the rows [n, d] without a value that is more than zero."""
    found: list[int] = (rows.detach().abs().amax(dim=1) <= NEAR_ZERO).nonzero().flatten().tolist()
    return set(found)


def alike(weight: Any, among: Collection[int]) -> set[int]:
    """Of these rows those that another one of them equals: a head gives tokens that never come the same."""
    numbers = sorted(among)
    if not numbers:
        return set()
    _, which, counts = weight.detach()[numbers].unique(dim=0, return_inverse=True, return_counts=True)
    return {number for number, group in zip(numbers, which.tolist(), strict=True) if counts[group] > 1}


def fill(weight: Any, tokens: int, rows: Collection[int], untrained: Collection[int]) -> None:
    """Put into `rows` the mean of all other rows of tokens, without untrained ones. Raises where there are none."""
    others = torch.ones(tokens, dtype=torch.bool)
    others[sorted({*rows, *untrained})] = False
    if not rows:
        return
    if not others.any():
        raise SettingError(
            "fix_untrained_tokens: of all other tokens none has a trained row to take the mean of. Name fewer, or take "
            "the key out."
        )
    with torch.no_grad():
        # In float64 the order of adding does not show.
        weight[sorted(rows)] = weight[:tokens][others].double().mean(dim=0).to(weight.dtype)
