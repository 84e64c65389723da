"""KTO: answers that are judged good or bad by themselves, against the model that training starts from."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tunemill.stages.artifacts import Adapter, Model, PreferenceData, ReferenceLogProbs
from tunemill.stages.data.rows.rated_body import RatedReader, collate_rated, others_of
from tunemill.stages.errors import RowError
from tunemill.stages.models.answers_body import summed_log_p
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.dropout_body import leave_nothing_out
from tunemill.stages.training.kto.config import KtoConfig
from tunemill.stages.training.kto.loss import kto_losses, share_of_kinds
from tunemill.stages.training.loop_body import train
from tunemill.stages.training.method import Batch, Counts, LossParts, Method, OwnLoss
from tunemill.stages.training.order_body import Examples
from tunemill.stages.training.pairs_body import check_lengths
from tunemill.stages.training.score_body import mean_over

WHY_LEFT_OUT = "with BOS and EOS, cut off after sequence_len, nothing is left of the answer"
# How the mean stands in a batch that the loss needs before any micro batch.
GONE = "gone"


class RatedExamples(Examples):
    """The judged answers in the order of each epoch."""

    def __init__(self, reader: RatedReader, seed: int, keep_order: bool) -> None:
        super().__init__(reader.read, reader.lengths, seed, keep_order=keep_order, file=reader.file)
        self.longest_row = reader.longest_row
        self._numbers = reader.numbers

    def rows(self, number: int) -> list[int]:
        """The row that an answer is of: those of which nothing is left are no examples."""
        return [int(self._numbers[number])]


def count_rated(batch: Batch) -> Counts:
    """How many rows a batch holds, and of either kind."""
    rows, desirable = len(batch["is_desirable"]), int(batch["is_desirable"].sum())
    return {"rows": rows, "desirable": desirable, "undesirable": rows - desirable}


def gone_of(model: Any, batch: Batch) -> Mapping[str, tuple[Tensor, str]]:
    """How much likelier the answers of other prompts became: the sum over a micro batch."""
    others = others_of(batch)
    return {GONE: ((summed_log_p(model, others) - others["reference_b"]).sum(), "rows")}


def loss_of(config: KtoConfig, model: Any, batch: Batch) -> LossParts:
    """The loss over rows; rewards are beta times how much likelier an answer became."""
    log_p_b = summed_log_p(model, batch)
    ratio_b = log_p_b - batch["reference_b"]
    kl = batch[GONE].clamp(min=0)
    is_desirable_b = batch["is_desirable"]
    losses_b = kto_losses(
        ratio_b,
        is_desirable_b,
        kl,
        config.rl_beta,
        config.kto_desirable_weight,
        config.kto_undesirable_weight,
    )
    shown: dict[str, tuple[Tensor, str]] = {"kl": (kl * len(ratio_b), "rows")}
    for side, kind, is_kind_b in (
        ("chosen", "desirable", is_desirable_b),
        ("rejected", "undesirable", ~is_desirable_b),
    ):
        shown[f"rewards/{side}"] = (config.rl_beta * ratio_b.detach()[is_kind_b].sum(), kind)
        shown[f"logps/{side}"] = (log_p_b.detach()[is_kind_b].sum(), kind)
    return LossParts({"rows": losses_b.sum()}, shown)


def margins(means: Mapping[str, float]) -> Mapping[str, float]:
    """How far the mean rewards of both kinds are apart, where there are both."""
    chosen, rejected = means.get("rewards/chosen"), means.get("rewards/rejected")
    return {} if chosen is None or rejected is None else {"rewards/margins": chosen - rejected}


def kto(
    config: KtoConfig,
    base_model: Model,
    training_data: PreferenceData,
    evaluation_data: PreferenceData | None,
    out: Workspace,
    report: Report,
    reference_logprobs: ReferenceLogProbs,
    stored_adapter: Adapter | None = None,
    held_out_logprobs: ReferenceLogProbs | None = None,
) -> None:
    """Train on judged answers, and score held-out ones.

    Raises RowError where none of the held-out ones is left, and what `train` raises.
    """
    read = partial(_read, load_words(base_model.path), config.sequence_len, report)
    rows = read("rows", training_data.rows, reference_logprobs.rows)
    held_out = None
    if evaluation_data is not None and held_out_logprobs is not None:
        held_out = read("held_out_rows", evaluation_data.rows, held_out_logprobs.rows)
    elif training_data.held_out.exists():
        held_out = read("held_out_rows", training_data.held_out, reference_logprobs.held_out)
    longest = {"training data": rows.longest_row}
    if held_out is not None:
        check_held_out(held_out)
        longest["held-out rows"] = held_out.longest_row
    say_shares(config, rows, report)
    own_loss = OwnLoss(partial(loss_of, config), count_rated, gone_of, margins)
    method = Method(
        examples=RatedExamples(rows, config.seed, config.curriculum_sampling),
        collator=lambda _model: collate_rated,
        check=partial(check_lengths, longest, report),
        own_loss=own_loss,
        score=None
        if held_out is None
        else partial(
            mean_over,
            own_loss=own_loss,
            collate=collate_rated,
            read=held_out.read,
            count=len(held_out.numbers),
            batch_size=config.eval_batch_size or config.micro_batch_size,
        ),
        prepare=without_dropout,
    )
    train(config.going_on_from(stored_adapter), base_model, method, out, report)


def without_dropout(model: Any, *_: Any) -> list[Any]:
    """What is compared with a reference is computed as that is."""
    leave_nothing_out(model)
    return []


def _read(
    tokenizer: Any, longest: int, report: Report, which: str, file: Path, reference: Path
) -> RatedReader:
    """Rows with what the reference says of them; and how many of them are left out, if there are any."""
    rows = RatedReader(file, tokenizer, longest, reference)
    if rows.left_out:
        report.summary(**{f"left_out_{which}": rows.left_out})
        report.log(f"warning: {rows.left_out} {which.replace('_', ' ')} are left out: {WHY_LEFT_OUT}")
    return rows


def check_held_out(rows: RatedReader) -> None:
    """Refuse held-out rows of which none is left: their loss would be no number."""
    if not len(rows.numbers):
        raise RowError(
            f"none of the {rows.left_out} held-out rows is left to score: {WHY_LEFT_OUT}. Raise sequence_len, or hold "
            f"out others"
        )


def say_shares(config: KtoConfig, rows: RatedReader, report: Report) -> None:
    """How many rows there are of either kind, and a word where the weights fit badly to that."""
    desirable = int(rows.are_desirable.sum())
    undesirable = len(rows.are_desirable) - desirable
    report.summary(desirable_rows=desirable, undesirable_rows=undesirable)
    if not desirable or not undesirable:
        report.log(
            f"warning: no row is {'undesirable' if desirable else 'desirable'}: a model that finds every answer "
            f"likelier, or none, has nothing more to learn"
        )
        return
    weights = config.kto_desirable_weight, config.kto_undesirable_weight
    share = share_of_kinds(desirable * weights[0], undesirable * weights[1])
    if share is not None:
        low, high = (undesirable * weights[1] * part / desirable for part in (1, 4 / 3))
        report.log(
            f"warning: {desirable} desirable rows and {undesirable} undesirable ones have together weights of "
            f"{share:.2f} to 1; the authors of KTO recommend 1 to 1.33. Set kto_desirable_weight between {low:.2g} and "
            f"{high:.2g}, or change kto_undesirable_weight instead"
        )
