"""The body of a method that learns from preferences, whatever its rows are: pairs of answers, or judged answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tunemill.stages.artifacts import Adapter, Model, PreferenceData, ReferenceLogProbs
from tunemill.stages.data.rows.pairs_body import PairReader
from tunemill.stages.data.rows.rated_body import RatedReader
from tunemill.stages.errors import RowError, SettingError
from tunemill.stages.models.positions_body import check_positions
from tunemill.stages.models.words_body import load_words
from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.dropout_body import leave_nothing_out
from tunemill.stages.training.keys.pairs import PairKeys
from tunemill.stages.training.keys.reference import HeldKeys, ReferenceKeys
from tunemill.stages.training.loop_body import train
from tunemill.stages.training.machine_body import Precision
from tunemill.stages.training.method import Batch, Method, OwnLoss
from tunemill.stages.training.order_body import Examples
from tunemill.stages.training.reference_body import LiveReference
from tunemill.stages.training.score_body import mean_over
from tunemill.stages.training.sequences_body import leaks

Reader = PairReader | RatedReader


@dataclass(frozen=True)
class Rows:
    """What rows are: their name in messages, what reads them, and why one of them is left out.

    `collator` is asked whether the sequences of a batch stand in one line, and gives what makes a batch.
    """

    name: str
    reader: Callable[[Path, Any, int, Path | None], Reader]
    collator: Callable[[bool], Callable[[Sequence[Any]], Batch]]
    why_left_out: str


class PreferenceExamples(Examples):
    """The rows in the order of each epoch."""

    def __init__(self, reader: Reader, seed: int, keep_order: bool) -> None:
        super().__init__(reader.read, reader.lengths, seed, keep_order=keep_order, file=reader.file)
        self.longest_row = reader.longest_row
        self._numbers = reader.numbers

    def rows(self, number: int) -> list[int]:
        """The row that an example is: those of which nothing is left are no examples."""
        return [int(self._numbers[number])]


def on_preferences(
    kind: Rows,
    own_loss_of: Callable[[Any], OwnLoss],
    look_at: Callable[[Any, Any, Report], None] = lambda _config, _rows, _report: None,
) -> Callable[..., None]:
    """The body of a method on rows of a kind. `own_loss_of` is handed its config, `look_at` also what is trained on.

    The body raises RowError where none of the held-out rows is left, and what `train` raises.
    """

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
        read = partial(read_rows, kind, load_words(base_model.path), config.sequence_len, report)
        own_loss, live = own_loss_of(config), None
        if isinstance(config, ReferenceKeys) and config.asks_beside_each_step:
            live = LiveReference(config, base_model)
            own_loss = replace(own_loss, loss=live.beside(own_loss.loss))
        stored = None if reference_logprobs is None else reference_logprobs.rows
        rows = read(kind.name, training_data.rows, stored)
        if evaluation_data is None:
            file = training_data.held_out
            stored = None if reference_logprobs is None else reference_logprobs.held_out
        else:
            file = evaluation_data.rows
            stored = None if held_out_logprobs is None else held_out_logprobs.rows
        held_out = read(f"held_out_{kind.name}", file, stored) if file.exists() else None
        longest = {"training data": rows.longest_row}
        if held_out is not None:
            check_held_out(kind, held_out)
            longest[f"held-out {kind.name}"] = held_out.longest_row
        look_at(config, rows, report)
        method = Method(
            examples=PreferenceExamples(rows, config.seed, config.curriculum_sampling),
            collator=lambda _model: kind.collator(config.flattens),
            check=partial(check_model, config, longest, report),
            own_loss=own_loss,
            score=None if held_out is None else scorer(kind, config, own_loss, held_out),
            prepare=partial(prepare, config, live),
        )
        train(config.going_on_from(stored_adapter), base_model, method, out, report)

    return body


def prepare(
    config: PairKeys, live: LiveReference | None, model: Any, precision: Precision, checkpoints: Path
) -> list[Any]:
    """Without dropout where the model is compared with another; and what asks that one beside each step."""
    if isinstance(config, HeldKeys):
        leave_nothing_out(model)
    return [] if live is None else [live.meet(model, precision, checkpoints)]


def read_rows(
    kind: Rows, tokenizer: Any, longest: int, report: Report, which: str, file: Path, stored: Path | None
) -> Reader:
    """Rows with what a reference says of them; and how many of them are left out, if there are any."""
    rows = kind.reader(file, tokenizer, longest, stored)
    if rows.left_out:
        report.summary(**{f"left_out_{which}": rows.left_out})
        report.log(f"warning: {rows.left_out} {which.replace('_', ' ')} are left out: {kind.why_left_out}")
    return rows


def check_held_out(kind: Rows, rows: Reader) -> None:
    """Refuse held-out rows of which none is left: their loss would be no number."""
    if not len(rows.numbers):
        raise RowError(
            f"none of the {rows.left_out} held-out {kind.name} is left to score: {kind.why_left_out}. Raise "
            f"sequence_len, or hold out others"
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


def scorer(
    kind: Rows, config: PairKeys, own_loss: OwnLoss, rows: Reader
) -> Callable[[Any], dict[str, float]]:
    """What computes the figures of held-out rows."""
    return partial(
        mean_over,
        own_loss=own_loss,
        collate=kind.collator(False),
        read=rows.read,
        count=len(rows.numbers),
        batch_size=config.eval_batch_size or config.micro_batch_size,
    )
