"""The loss of one model over the trained tokens of held-out rows."""

from tunemill.stages.artifacts import Adapter, EvaluationData, Model
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.errors import UserError
from tunemill.stages.evaluation.held_out_loss.config import HeldOutLossConfig
from tunemill.stages.evaluation.loading_body import load_scored
from tunemill.stages.evaluation.perplexity import perplexity_of
from tunemill.stages.evaluation.row_ids import row_id
from tunemill.stages.evaluation.written import Mean, write_scores
from tunemill.stages.models.finite import check_finite
from tunemill.stages.models.loss_body import mean_loss, row_losses
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.positions_body import check_positions
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Workspace


def held_out_loss(
    config: HeldOutLossConfig,
    model: Model,
    adapter: Adapter | None,
    evaluation_data: EvaluationData,
    out: Workspace,
    report: Report,
) -> None:
    """Write metrics, predictions and intervals. Raises UserError where no held-out token is trained."""
    be_quiet()
    use_code_of(model.path)
    rows = Rows(evaluation_data.rows)
    numbers = range(min(len(rows), config.max_rows or len(rows)))
    loaded = load_scored(model, adapter)
    plain = loaded if adapter is None else loaded.get_base_model()
    check_positions(plain, int(rows.lengths[: len(numbers)].max(initial=0)), "evaluation data", report)
    losses = row_losses(loaded, rows, numbers, config.rows_at_once)
    if not any(loss.tokens for loss in losses):
        raise UserError(
            f"evaluation data: none of {len(numbers)} rows has a token to score (all labels are -100). Look at "
            f"roles_to_train, train_on_inputs and sequence_len"
        )
    mean = mean_loss(losses)
    check_finite("evaluation", "the loss on held-out rows", mean, plain.dtype)
    words = load_words((adapter or model).path)
    predictions = [
        {
            "row": row,
            "id": row_id("", str(words.decode(rows.ids(row).tolist(), skip_special_tokens=True))),
            "loss": loss.total / loss.tokens if loss.tokens else None,
            "loss_tokens": loss.tokens,
        }
        for row, loss in zip(numbers, losses, strict=True)
    ]
    means = {
        "eval_loss": Mean("loss", "loss_tokens"),
        "perplexity": Mean("loss", "loss_tokens", perplexity_of),
    }
    metrics = {"eval_loss": mean, "perplexity": perplexity_of(mean), "rows": len(numbers)}
    write_scores(metrics, predictions, means, out.data, report)
