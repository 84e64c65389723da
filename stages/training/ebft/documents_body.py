"""Documents, the places in them that completions begin at, and how both lie in one sequence.

A sequence of Q tokens is a document of L, and behind it a block of G tokens for each of its A anchors. A block's tokens
have the positions that those behind its anchor have, and see what `block_mask` lets them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.errors import RowError
from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.ebft.features_body import anchors, block_mask


@dataclass(frozen=True)
class Document:
    """A row's tokens, as far as `sequence_len`; `answer` is where what is learned begins, `starts` are its anchors."""

    row: int
    ids: tuple[int, ...]
    answer: int
    starts: tuple[int, ...]
    context: int
    generated: int

    @property
    def own_blocks(self) -> list[tuple[int, ...]]:
        """What the document itself has behind each anchor."""
        return [self.ids[start : start + self.generated] for start in self.starts]

    @cached_property
    def mask(self) -> Tensor:
        """[Q, Q] which token sees which."""
        return block_mask(len(self.ids), self.starts, self.context, self.generated)

    @cached_property
    def positions(self) -> Tensor:
        """[Q] of the document's tokens, and of those of its blocks."""
        blocks = [torch.arange(start, start + self.generated) for start in self.starts]
        return torch.cat([torch.arange(len(self.ids)), *blocks])

    @cached_property
    def predicting(self) -> Tensor:
        """[A, G] the places of a sequence that predict the tokens of each block: first the one before its anchor."""
        first_a = torch.tensor(self.starts)[:, None] - 1
        blocks_ag = len(self.ids) + torch.arange(len(self.starts) * self.generated).reshape(
            -1, self.generated
        )
        return torch.cat([first_a, blocks_ag[:, :-1]], dim=1)

    def sequence(self, blocks: Sequence[Sequence[int]]) -> list[int]:
        """The document with these blocks behind it."""
        return [*self.ids, *(token for block in blocks for token in block)]


def document_of(
    config: EbftConfig, row: int, prompt: Sequence[int], answer: Sequence[int], *, asks: bool
) -> Document:
    """A row as a document. `asks`: whether it has a prompt, of which nothing is learned, and no mere opening token."""
    ids = (*prompt, *answer)[: config.sequence_len]
    first = max(len(prompt) + config.min_completion_prefix if asks else 1, config.context_length)
    starts = anchors(len(ids), first, config.stride, config.generate_max_len)
    learned = min(len(prompt), len(ids)) if asks else 1
    return Document(row, ids, learned, tuple(starts), config.context_length, config.generate_max_len)


def documents_of(
    config: EbftConfig, prompts: PromptRows, answers: Sequence[Sequence[int]]
) -> tuple[list[Document], int]:
    """The rows that have room for a block, and how many have none. Raises RowError where no row has."""
    every = [
        document_of(config, row, prompts[row].ids, answer, asks=prompts[row].value != "")
        for row, answer in enumerate(answers)
    ]
    found = [one for one in every if one.starts]
    if not found:
        raise RowError(
            f"no document has room for a block of ebft.generate_max_len: {config.generate_max_len} tokens behind "
            f"ebft.context_length: {config.context_length} and its prompt (the longest has "
            f"{max(len(one.ids) for one in every)} tokens, sequence_len is {config.sequence_len}). Lower them, or "
            f"raise sequence_len"
        )
    return found, len(every) - len(found)
