"""Held-out loss, row by row, with several rows in a sequence: the same losses, up to rounding."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch.nn import functional

from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.data.rows.isolation_body import rows_leak
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.data.rows.packing import pack
from tunemill.stages.errors import SettingError
from tunemill.stages.models.loss_body import LOGIT_BYTES, RowLoss

PACKED = Collator("packed", pad_to=None)


def packed_row_losses(model: Any, rows: Rows, numbers: Sequence[int], batch_size: int) -> list[RowLoss]:
    """The loss of each row of `numbers`, in that order, `batch_size` packs at a time.

    A pack is as long as the longest row. The model's mode is left as it was. Raises SettingError for a model in
    which the rows of a pack see each other.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    _check_rows_stay_apart(model, device)
    lengths = rows.lengths[np.asarray(numbers, np.int64)]
    longest = int(lengths.max())
    max_packs = max(1, LOGIT_BYTES // (4 * model.config.get_text_config().vocab_size * longest))
    at_once = min(batch_size, max_packs)
    if str(model.config._attn_implementation).startswith("flash"):
        # Flash attention keeps rows apart in a batch of one only, however long.
        longest, at_once = longest * at_once, 1
    packs = pack(lengths, longest, 0, in_order=True)
    groups = np.split(packs.rows, packs.offsets[1:-1])
    found: dict[int, RowLoss] = {}
    with torch.no_grad():
        for first in range(0, len(groups), at_once):
            batch = [[numbers[int(i)] for i in group] for group in groups[first : first + at_once]]
            found.update(_batch_losses(model, rows, batch, device))
    model.train(was_training)
    return [found[row] for row in numbers]


def _check_rows_stay_apart(model: Any, device: Any) -> None:
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    takes_positions = "position_ids" in inspect.signature(plain.forward).parameters
    with torch.no_grad():
        if not takes_positions or rows_leak(plain, device):
            raise SettingError(
                f"eval_sample_packing: in {type(plain).__name__} the rows of a sequence see each other (it does not "
                f"read position_ids as borders). Set eval_sample_packing: false."
            )


def _batch_losses(model: Any, rows: Rows, batch: Sequence[Sequence[int]], device: Any) -> dict[int, RowLoss]:
    tensors = PACKED([[(rows.ids(row), rows.labels(row)) for row in group] for group in batch])
    labels = tensors.pop("labels")
    arguments = {name: tensor.to(device) for name, tensor in tensors.items()}
    logits = model(**arguments, use_cache=False).logits
    targets = labels[:, 1:].to(logits.device)
    losses = functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    ).double()
    found: dict[int, RowLoss] = {}
    for place, group in enumerate(batch):
        start = 0
        for row in group:
            # The loss at t is that of token t + 1; a row's first token is not scored.
            within = slice(start, start + int(rows.lengths[row]) - 1)
            tokens = int((targets[place, within] != IGNORED).sum())
            found[row] = RowLoss(float(losses[place, within].sum()), tokens)
            start += int(rows.lengths[row])
    return found
