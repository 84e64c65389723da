"""Whether what was written is what was trained, where code of one's own had a hand in it."""

from typing import Any

import torch

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.models.loading_body import is_quantized, load_base_of, load_model
from tunemill.stages.models.quantization_body import rounding_parts
from tunemill.stages.models.rounded_body import with_adapter
from tunemill.stages.report import Workspace
from tunemill.stages.training.adapters.starts_body import check_same, probe
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.machine_body import Precision
from tunemill.stages.training.memory_body import ran_out

CAUSE = (
    "plugins: the folder that was written, read by transformers, is another model than the one that was trained. "
    "A plugin put something into the model that is no part of its architecture (a module, a hook of PyTorch's), or "
    "changed weights that are not saved, as those of an adapter's base; only weights that are trained may change"
)


def prove_saved(
    config: TrainingKeys, model: Any, base_model: Model, precision: Precision, out: Workspace
) -> dict[str, float]:
    """The largest difference of a logit between the trained model and what transformers (and PEFT) read of the folder.

    Raises UserError where it is more than rounding, or the folder cannot be read.
    """
    weight = model.get_input_embeddings().weight
    folder = out.data if config.adapter is None else base_model.path
    try:
        plain = (
            load_model(folder, dtype=weight.dtype)
            if config.adapter is None
            else load_base_of(out.data, folder, dtype=weight.dtype)
        )
        if not is_quantized(folder):
            plain = plain.to(weight.device)
        logits = probe(plain if config.adapter is None else with_adapter(plain, out.data))
    except (RuntimeError, ValueError, OSError) as error:
        if ran_out(error):
            raise
        raise UserError(f"{CAUSE} ({str(error).strip().splitlines()[0]}).") from error
    for part in rounding_parts(model):
        # Quantization-aware training: what is written is rounded later.
        part.enabled = False
    computed: torch.dtype = precision.autocast or weight.dtype
    return {"saved_logit_difference": check_same(logits, probe(model), computed, UserError, CAUSE)}
