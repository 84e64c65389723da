"""The body of the `reference_logprobs` stage: one pass of a frozen model over all pairs, or all judged answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from tunemill.stages.artifacts import Adapter, Model, PreferenceData
from tunemill.stages.data.rows.collate_body import Batch
from tunemill.stages.data.rows.log_p_columns import write_log_p
from tunemill.stages.data.rows.pairs_body import SIDES, PairReader, collate_pairs
from tunemill.stages.data.rows.rated_body import ANSWERS, RatedReader, passes_of
from tunemill.stages.models.positions_body import check_positions
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.words_body import load_words
from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.machine_body import check_attention, choose_precision
from tunemill.stages.training.reference_body import load_reference, reference_log_p
from tunemill.stages.training.reference_logprobs.config import ReferenceConfig

# The files of rows, by what messages call them.
WHICH = {"rows": "preference data", "held_out": "held-out preferences"}


@dataclass(frozen=True)
class Kind:
    """What rows are.

    `answers` name their stored columns. `passes` gives what the model reads of some rows in training: one batch or
    several, whose sequences hold all first answers of the rows, then all second ones.
    """

    name: str
    answers: Sequence[str]
    reader: Callable[..., PairReader | RatedReader]
    passes: Callable[[Sequence[Any]], Sequence[Batch]]


PAIRS = Kind("pairs", SIDES, PairReader, lambda pairs: [collate_pairs(pairs)])
RATED = Kind("judged answers", ANSWERS, RatedReader, passes_of)


def reference_logprobs(
    config: ReferenceConfig,
    base_model: Model,
    preference_data: PreferenceData,
    out: Workspace,
    report: Report,
    stored_adapter: Adapter | None = None,
) -> None:
    """Write `rows.arrow`, and `held_out.arrow` where there are such rows.

    Raises SettingError for what this machine or model cannot honour.
    """
    be_quiet()
    precision = choose_precision(config, has_factors=config.has_factors)
    check_attention(config)
    folder = Path(config.lora_model_dir) if config.adapter and config.lora_model_dir else None
    adapter = folder if stored_adapter is None else stored_adapter.path
    model = load_reference(config, base_model, precision, adapter)
    plain = plain_model(model)
    tokenizer = load_words(base_model.path)
    for name, file in (("rows", preference_data.rows), ("held_out", preference_data.held_out)):
        if file.exists():
            kind = kind_of(file)
            rows = kind.reader(file, tokenizer, config.sequence_len)
            check_positions(plain, rows.longest_row, WHICH[name], report)
            log_p_n2 = score(model, kind, rows, config.micro_batch_size, precision.autocast, report.progress)
            write_log_p(out.data / f"{name}.arrow", kind.answers, rows.rows, rows.numbers, log_p_n2.numpy())
            report.summary(**{name: len(rows.numbers)})


def kind_of(file: Path) -> Kind:
    """What the rows of a prepared file are, by their columns."""
    with pa.memory_map(str(file)) as mapped:
        return RATED if "label" in pa.ipc.open_file(mapped).schema.names else PAIRS


def score(
    model: Any,
    kind: Kind,
    rows: PairReader | RatedReader,
    batch_size: int,
    autocast: Any,
    on_batch: Callable[[int, int | None, str], None],
) -> Tensor:
    """[N, 2] what the model says of both answers of each of the N rows that are read.

    Batches are those of a first epoch with as many rows: the same padding, and so the same rounding.
    """
    device = next(model.parameters()).device
    count = len(rows.numbers)
    found = torch.empty(count, 2)
    for first in range(0, count, batch_size):
        last = min(first + batch_size, count)
        passes = kind.passes([rows.read(place) for place in range(first, last)])
        moved = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in passes]
        log_p_2b = torch.cat([reference_log_p(model, batch, autocast) for batch in moved])
        found[first:last] = log_p_2b.view(2, -1).T.cpu()
        on_batch(last, count, kind.name)
    return found
