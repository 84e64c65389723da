"""Process reward models: answers in judged steps, and a head that says of each step's last token which class it is."""

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tunemill.stages.artifacts import Adapter, EvaluationData, Model, TrainingData
from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.errors import RowError
from tunemill.stages.models.positions_body import table_of_positions
from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.loop_body import train
from tunemill.stages.training.method import Method, OwnLoss
from tunemill.stages.training.process_reward.config import ProcessRewardConfig
from tunemill.stages.training.process_reward.loss import judged_steps, step_loss
from tunemill.stages.training.score_body import mean_over
from tunemill.stages.training.sequences_body import check_rows, collator_of, sequences_of


def process_reward(
    config: ProcessRewardConfig,
    base_model: Model,
    training_data: TrainingData,
    evaluation_data: EvaluationData | None,
    out: Workspace,
    report: Report,
    stored_adapter: Adapter | None = None,
) -> None:
    """Train, resuming from the last complete checkpoint, and write the model or the adapter, with its head.

    Raises RowError for a class that the head has not, SettingError for what this machine or model cannot honour.
    """
    check_classes("training data", training_data.rows, config.num_labels)
    if evaluation_data is not None:
        check_classes("held-out rows", evaluation_data.rows, config.num_labels)
    sequences = sequences_of(config, training_data)
    own_loss = OwnLoss(step_loss, judged_steps)
    method = Method(
        examples=sequences,
        collator=partial(collator_of, config, report, own_labels=True),
        check=partial(check_rows, config, sequences, evaluation_data, report),
        own_loss=own_loss,
        score=None
        if evaluation_data is None
        else partial(score, config, own_loss, Rows(evaluation_data.rows)),
    )
    train(config.going_on_from(stored_adapter), base_model, method, out, report)


def check_classes(which: str, rows: Path, classes: int) -> None:
    """Refuse rows in which a step is of a class that the head does not have."""
    table = pa.ipc.open_file(pa.memory_map(str(rows))).read_all()
    flat = pc.list_flatten(table["labels"])
    largest = pc.max(flat).as_py()
    if largest is not None and largest >= classes:
        row = pc.list_parent_indices(table["labels"])[pc.index(flat, largest).as_py()].as_py()
        raise RowError(
            f"{which}: a step of row {row + 1} is labelled {largest}, and with num_labels: {classes} there are the "
            f"classes 0 to {classes - 1}. Set num_labels: {largest + 1}, or correct the labels."
        )


def score(config: ProcessRewardConfig, own_loss: OwnLoss, rows: Rows, model: Any) -> dict[str, float]:
    """Figures of the held-out steps."""
    collate = Collator("padded", None, positions=table_of_positions(plain_model(model)), own_labels=True)
    return mean_over(
        model,
        own_loss,
        collate,
        lambda row: [(rows.ids(row), rows.labels(row))],
        len(rows),
        config.eval_batch_size or config.micro_batch_size,
    )
