"""The body of a method that learns from pairs of answers, and what it shows of them. B: pairs of a micro batch."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tunemill.stages.artifacts import Adapter, Model, PreferenceData, ReferenceLogProbs
from tunemill.stages.data.rows.collate_body import Batch
from tunemill.stages.data.rows.pairs_body import PairReader, collate_pairs, flatten_pairs
from tunemill.stages.errors import RowError, SettingError
from tunemill.stages.models.answers_body import sequences_in
from tunemill.stages.models.positions_body import check_positions
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.dropout_body import leave_nothing_out
from tunemill.stages.training.keys.pairs import PairKeys
from tunemill.stages.training.keys.reference import ReferenceKeys
from tunemill.stages.training.loop_body import plain_model, train
from tunemill.stages.training.machine_body import Precision
from tunemill.stages.training.method import Counts, LossParts, Method, OwnLoss
from tunemill.stages.training.order_body import Examples
from tunemill.stages.training.reference_body import LiveReference
from tunemill.stages.training.score_body import mean_over
from tunemill.stages.training.sequences_body import leaks


class PairExamples(Examples):
    """The pairs in the order of each epoch."""

    def __init__(self, reader: PairReader, seed: int, keep_order: bool) -> None:
        super().__init__(reader.read, reader.lengths, seed, keep_order=keep_order, file=reader.file)
        self.longest_row = reader.longest_row
        self._numbers = reader.numbers

    def rows(self, number: int) -> list[int]:
        """The row that a pair is: those of which nothing is left of an answer are no examples."""
        return [int(self._numbers[number])]


def count_pairs(batch: Batch) -> Counts:
    """How many pairs a batch holds."""
    return {"pairs": sequences_in(batch) // 2}


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
        reference_logprobs: ReferenceLogProbs | None = None,
        held_out_logprobs: ReferenceLogProbs | None = None,
    ) -> None:
        tokenizer = load_words(base_model.path)
        live: LiveReference | None = None
        loss = partial(loss_of, config)
        if isinstance(config, ReferenceKeys) and config.asks_beside_each_step:
            live = LiveReference(config, base_model)
        own_loss = OwnLoss(loss if live is None else live.beside(loss), counts_of)
        stored = None if reference_logprobs is None else reference_logprobs.rows
        pairs = PairReader(training_data.rows, tokenizer, config.sequence_len, stored)
        if evaluation_data is None:
            file = training_data.held_out
            stored = None if reference_logprobs is None else reference_logprobs.held_out
        else:
            file = evaluation_data.rows
            stored = None if held_out_logprobs is None else held_out_logprobs.rows
        held_out = PairReader(file, tokenizer, config.sequence_len, stored) if file.exists() else None
        say_left_out("pairs", pairs, report)
        longest = {"training data": pairs.longest_row}
        if held_out is not None:
            say_left_out("held_out_pairs", held_out, report)
            check_held_out(held_out)
            longest["held-out pairs"] = held_out.longest_row
        method = Method(
            examples=PairExamples(pairs, config.seed, config.curriculum_sampling),
            collator=lambda _model: flatten_pairs if config.flattens else collate_pairs,
            check=partial(check_model, config, longest, report),
            own_loss=own_loss,
            score=None if held_out is None else scorer(config, own_loss, held_out),
            prepare=partial(prepare, config, live),
        )
        train(config.going_on_from(stored_adapter), base_model, method, out, report)

    return body


def prepare(
    config: PairKeys, live: LiveReference | None, model: Any, precision: Precision, checkpoints: Path
) -> list[Any]:
    """Without dropout where the model is compared with another; and what asks that one beside each step."""
    if isinstance(config, ReferenceKeys):
        leave_nothing_out(model)
    return [] if live is None else [live.meet(model, precision, checkpoints)]


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


def check_model(
    config: PairKeys, longest: Mapping[str, int], report: Report, model: Any, collator: Any
) -> None:
    """Refuse a model with too few positions, or in which the answers of a line would see each other."""
    check_lengths(longest, report, model, collator)
    if config.flattens and leaks(model, under_mask=False):
        raise SettingError(
            f"dpo_padding_free: in {type(plain_model(model)).__name__} the sequences of a line see each other (it does "
            f"not read position_ids as borders). Remove it."
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
