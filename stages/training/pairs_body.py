"""Training on pairs of answers: the pairs as tokens, what a model says of them, and the body of such a method.

B: pairs of a micro batch, L: tokens of the longest of their 2B sequences, V: the vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Encoding
from torch import Tensor

from tunemill.kernels.functions.selective_log_softmax import selective_log_softmax
from tunemill.stages.artifacts import Adapter, Model, PreferenceData
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.rows.collate_body import Batch, Collator, Row
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.errors import RowError, SettingError
from tunemill.stages.models.positions_body import check_positions
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.keys.pairs import PairKeys
from tunemill.stages.training.loop_body import plain_model, train
from tunemill.stages.training.method import Counts, LossParts, Method, OwnLoss
from tunemill.stages.training.order_body import Examples
from tunemill.stages.training.score_body import mean_over

TEXTS_AT_ONCE = 1024
SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Pair:
    """The prompt with either answer: token ids, and labels that are masked over the prompt."""

    chosen: Row
    rejected: Row


class PairReader:
    """Pairs of a prepared file by number, tokenized when they are read.

    A BOS token goes before a prompt and an EOS token behind an answer where they are not there already, as TRL does
    it; what is then longer than `longest` tokens loses its end. `numbers` are those of the pairs in which something
    is left of both answers, and not the same; `left_out` is how many others there are.
    """

    def __init__(self, rows: Path, tokenizer: Any, longest: int) -> None:
        if tokenizer.eos_token_id is None:
            raise SettingError(
                "the tokenizer has no EOS token to end answers with; set special_tokens: eos_token"
            )
        self.file = rows
        self._table = pa.ipc.open_file(pa.memory_map(str(rows))).read_all()
        self._tokenizer = tokenizer
        self._reference = Reference(tokenizer.backend_tokenizer)
        self._longest = longest
        pairs = [pair for first in range(0, len(self._table), TEXTS_AT_ONCE) for pair in self._sizes(first)]
        sizes = np.asarray(pairs, dtype=np.int64).reshape(len(pairs), 2)
        self.numbers = np.flatnonzero(sizes.min(axis=1, initial=np.iinfo(np.int64).max) > 0)
        self.left_out = len(pairs) - len(self.numbers)
        self.longest_row = int(sizes[self.numbers].max(initial=0))
        """Tokens of the longest sequence of a pair."""
        self.lengths = sizes.sum(axis=1)[self.numbers]
        """Tokens of each pair, of both sequences together."""

    def read(self, place: int) -> Pair:
        """The pair at a place among `numbers`."""
        (pair,) = self._pairs(int(self.numbers[place]), 1)
        return pair

    def _sizes(self, first: int) -> list[tuple[int, int]]:
        """Tokens of either side of some pairs; 0 where nothing of the answer is left, or both are the same."""
        return [
            (0, 0) if _are_equal(pair) else (_size(pair.chosen), _size(pair.rejected))
            for pair in self._pairs(first, TEXTS_AT_ONCE)
        ]

    def _pairs(self, first: int, count: int) -> list[Pair]:
        rows = self._table.slice(first, count)
        prompts = rows["prompt"].to_pylist()
        whole = {
            side: [p + a for p, a in zip(prompts, rows[side].to_pylist(), strict=True)] for side in SIDES
        }
        encoded = [self._reference.bare.encode_batch(whole[side], add_special_tokens=False) for side in SIDES]
        made = zip(prompts, *encoded, strict=True)
        return [Pair(*(self._row(len(prompt), side) for side in sides)) for prompt, *sides in made]

    def _row(self, prompt: int, encoding: Encoding) -> Row:
        """A token that reaches from the prompt, of so many characters, into the answer belongs to the answer."""
        whole = encoding.ids
        start = sum(end <= prompt for _, end in encoding.offsets)
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        before = [bos] if bos is not None and whole[:1] != [bos] else []
        after = [] if whole[start:] and whole[-1] == eos else [eos]
        ids = np.asarray([*before, *whole, *after][: self._longest], dtype=np.int32)
        labels = ids.copy()
        labels[: len(before) + start] = IGNORED
        return ids, labels


def _are_equal(pair: Pair) -> bool:
    return np.array_equal(pair.chosen[0], pair.rejected[0])


def _size(row: Row) -> int:
    ids, labels = row
    return len(ids) if (labels != IGNORED).any() else 0


class PairExamples(Examples):
    """The pairs in the order of each epoch."""

    def __init__(self, reader: PairReader, seed: int, keep_order: bool) -> None:
        super().__init__(reader.read, reader.lengths, seed, keep_order=keep_order, file=reader.file)
        self.longest_row = reader.longest_row
        self._numbers = reader.numbers

    def rows(self, number: int) -> list[int]:
        """The row that a pair is: those of which nothing is left of an answer are no examples."""
        return [int(self._numbers[number])]


def collate_pairs(pairs: Sequence[Pair]) -> Batch:
    """[2B, L] ids, labels and attention mask: the chosen sequences, then the rejected ones."""
    rows = [[pair.chosen] for pair in pairs] + [[pair.rejected] for pair in pairs]
    return Collator("padded", None)(rows)


def count_pairs(batch: Batch) -> Counts:
    """How many pairs a batch holds."""
    return {"pairs": len(batch["input_ids"]) // 2}


@dataclass(frozen=True)
class AnswerLogP:
    """Log probabilities of the answers of B pairs: `sum_2b` over their tokens, of which there are `tokens_2b`.

    `chosen_sequences` is the sum over all tokens of the chosen sequences, their prompts included.
    """

    sum_2b: Tensor
    tokens_2b: Tensor
    chosen_sequences: Tensor

    @property
    def mean_b(self) -> tuple[Tensor, Tensor]:
        """In the mean over an answer's tokens: of the chosen answers, and of the rejected ones."""
        chosen_b, rejected_b = (self.sum_2b / self.tokens_2b).chunk(2)
        return chosen_b, rejected_b


def answer_log_p(model: Any, batch: Batch) -> AnswerLogP:
    """What the model says of the answers of a batch of `collate_pairs`."""
    ids_2bl, mask_2bl = batch["input_ids"], batch["attention_mask"]
    logits_2blv = model(input_ids=ids_2bl, attention_mask=mask_2bl, use_cache=False).logits
    log_p_2bl = selective_log_softmax(logits_2blv[:, :-1], ids_2bl[:, 1:])
    answer_2bl = batch["labels"][:, 1:] != IGNORED
    pairs = len(ids_2bl) // 2
    return AnswerLogP(
        (log_p_2bl * answer_2bl).sum(-1),
        answer_2bl.sum(-1),
        (log_p_2bl[:pairs] * mask_2bl[:pairs, 1:]).sum(),
    )


Sides = tuple[Tensor, Tensor]


def compared(log_p: Sides, merits: Sides, beta: float) -> dict[str, tuple[Tensor, str]]:
    """What is shown of B pairs, by the names of `keys.pairs.COMPARED`: the metrics of `LossParts`, over "pairs".

    `log_p`: [B] log probabilities of the chosen and of the rejected answers. `merits`: what a reward is `beta` times,
    [B] of either: these log probabilities themselves, or what they have gained on the reference model's.
    """
    (chosen_b, rejected_b), (merit_b, other_b) = _detached(log_p), _detached(merits)
    margins_b = beta * (merit_b - other_b)
    shown = {
        "rewards/chosen": beta * merit_b,
        "rewards/rejected": beta * other_b,
        "rewards/margins": margins_b,
        "rewards/accuracies": margins_b > 0,
        "logps/chosen": chosen_b,
        "logps/rejected": rejected_b,
    }
    return {name: (value_b.sum(), "pairs") for name, value_b in shown.items()}


def _detached(sides: Sides) -> Sides:
    chosen_b, rejected_b = sides
    return chosen_b.detach(), rejected_b.detach()


def on_pairs(
    loss_of: Callable[[Any, Any, Batch], LossParts], counts_of: Callable[[Batch], Counts] = count_pairs
) -> Callable[..., None]:
    """The body of a method: `loss_of` gives for its config, a model and a batch of pairs the parts of the loss."""

    def body(
        config: PairKeys,
        base_model: Model,
        training_data: PreferenceData,
        evaluation_data: PreferenceData | None,
        out: Workspace,
        report: Report,
        stored_adapter: Adapter | None = None,
    ) -> None:
        tokenizer = load_words(base_model.path)
        own_loss = OwnLoss(partial(loss_of, config), counts_of)
        file = training_data.held_out if evaluation_data is None else evaluation_data.rows
        pairs = PairReader(training_data.rows, tokenizer, config.sequence_len)
        held_out = PairReader(file, tokenizer, config.sequence_len) if file.exists() else None
        say_left_out("pairs", pairs, report)
        longest = {"training data": pairs.longest_row}
        if held_out is not None:
            say_left_out("held_out_pairs", held_out, report)
            check_held_out(held_out)
            longest["held-out pairs"] = held_out.longest_row
        method = Method(
            examples=PairExamples(pairs, config.seed, config.curriculum_sampling),
            collator=lambda _model: collate_pairs,
            check=partial(check_lengths, longest, report),
            own_loss=own_loss,
            score=None if held_out is None else scorer(config, own_loss, held_out),
        )
        train(config.going_on_from(stored_adapter), base_model, method, out, report)

    return body


def say_left_out(which: str, pairs: PairReader, report: Report) -> None:
    """How many of these pairs are not read, if there are any."""
    if pairs.left_out:
        report.summary(**{f"left_out_{which}": pairs.left_out})
        report.log(
            f"warning: {pairs.left_out} {which.replace('_', ' ')} are left out: with BOS and EOS, cut off after "
            "sequence_len, nothing is left of an answer, or both are the same"
        )


def check_held_out(pairs: PairReader) -> None:
    """Refuse held-out pairs of which none is left: their loss would be no number."""
    if not len(pairs.numbers):
        raise RowError(
            f"none of the {pairs.left_out} held-out pairs is left to score: with BOS and EOS, cut off after "
            "sequence_len, nothing is left of an answer, or both are the same. Raise sequence_len, or hold out others"
        )


def check_lengths(longest: Mapping[str, int], report: Report, model: Any, _collator: Any) -> None:
    """Refuse a model with too few positions for a sequence. `longest`: which rows -> tokens of the longest."""
    for which, tokens in longest.items():
        check_positions(plain_model(model), tokens, which, report)


def scorer(config: PairKeys, own_loss: OwnLoss, pairs: PairReader) -> Callable[[Any], dict[str, float]]:
    """What computes the figures of held-out pairs."""
    return partial(
        mean_over,
        own_loss=own_loss,
        collate=collate_pairs,
        read=pairs.read,
        count=len(pairs.numbers),
        batch_size=config.eval_batch_size or config.micro_batch_size,
    )
