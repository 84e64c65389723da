"""KTO: answers that are judged good or bad by themselves, against the model that training starts from."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from tunemill.stages.data.rows.rated_body import RatedReader, collate_rated, others_of
from tunemill.stages.models.answers_body import summed_log_p
from tunemill.stages.report import Report
from tunemill.stages.training.kto.config import KtoConfig
from tunemill.stages.training.kto.loss import kto_losses, share_of_kinds
from tunemill.stages.training.method import Batch, Counts, LossParts, OwnLoss
from tunemill.stages.training.preferences_body import Rows, on_preferences

RATED = Rows(
    "rows",
    RatedReader,
    lambda _flattens: collate_rated,
    "with BOS and EOS, cut off after sequence_len, nothing is left of the answer",
)
# How the mean stands in a batch that the loss needs before any micro batch.
GONE = "gone"


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


def own_loss_of(config: KtoConfig) -> OwnLoss:
    """The loss, with what it is compared with over a whole step."""
    return OwnLoss(partial(loss_of, config), count_rated, gone_of, margins)


kto = on_preferences(RATED, own_loss_of, say_shares)
