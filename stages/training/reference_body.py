"""The frozen model that a training compares its own with: loaded once, or asked beside each step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from tunemill.stages.artifacts import Model
from tunemill.stages.models.answers_body import summed_log_p
from tunemill.stages.models.loading_body import is_quantized, load_causal_lm
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.rounded_body import with_adapter
from tunemill.stages.models.wrapped_body import single, uncompiled
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.keys.attention import AttentionKeys
from tunemill.stages.training.keys.following import FollowedKeys
from tunemill.stages.training.machine_body import Precision, to_float8
from tunemill.stages.training.method import Batch, LossParts

FILE = "reference.safetensors"


def load_reference(
    config: AttentionKeys, base_model: Model, precision: Precision, adapter: Path | None = None
) -> Any:
    """The model of a folder, with an adapter or without, on its device and without dropout, gradients or a cache."""
    use_code_of(base_model.path)
    attention = {"attn_implementation": config.attention} if config.attention else {}
    compute_type = precision.autocast or precision.weights
    model = load_causal_lm(base_model.path, dtype=precision.weights, compute_type=compute_type, **attention)
    if precision.fp8:
        to_float8(model)
    if adapter is not None:
        model = with_adapter(model, adapter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return (model if is_quantized(base_model.path) else model.to(device)).eval().requires_grad_(False)


def reference_log_p(model: Any, batch: Batch, autocast: Any) -> Tensor:
    """What the model says of the answer of each sequence of a batch, under an autocast to that type."""
    device = next(model.parameters()).device
    with torch.no_grad(), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        return summed_log_p(model, batch)


class LiveReference(TrainerCallback):  # type: ignore[misc]
    """A reference that is asked beside each step: an adapter's base without it, or a copy, which may follow."""

    def __init__(self, config: FollowedKeys, base_model: Model) -> None:
        self.config, self._base_model = config, base_model
        self._copy: Any = None
        self._autocast: Any = None
        self._root = Path()

    def meet(self, model: Any, precision: Precision, checkpoints: Path) -> "LiveReference":
        """Called with the loaded model, of each attempt to train: nothing is kept of an earlier one."""
        self._copy, self._autocast, self._root = None, precision.autocast, checkpoints
        if not hasattr(model, "peft_config"):
            self._copy = load_reference(self.config, self._base_model, precision)
        return self

    def beside(self, loss: Callable[[Any, Batch], LossParts]) -> Callable[[Any, Batch], LossParts]:
        """The loss with `reference_2b` in its batches."""
        return lambda model, batch: loss(model, {**batch, "reference_2b": self.log_p(model, batch)})

    def log_p(self, model: Any, batch: Batch) -> Tensor:
        """[2B] what the reference of a model says of the answers."""
        with self.of(model) as reference:
            return reference_log_p(reference, batch, self._autocast)

    @contextmanager
    def of(self, model: Any) -> Iterator[Any]:
        """The reference of a model, to be asked while this lasts."""
        if self._copy is not None:
            yield self._copy
            return
        plain = single(uncompiled(model))
        with plain.disable_adapter():
            yield plain

    def resume(self, checkpoint: Path | None) -> None:
        """Go on with the copy of a checkpoint."""
        if checkpoint is not None and (checkpoint / FILE).is_file():
            stored = load_file(checkpoint / FILE)
            for name, parameter in self._copy.named_parameters():
                parameter.data.copy_(stored[name])

    def on_step_end(self, _args: Any, state: Any, _control: Any, model: Any, **_kwargs: Any) -> None:
        """reference <- alpha trained + (1 - alpha) reference."""
        config = self.config
        if config.sync_ref_model and state.global_step % config.ref_model_sync_steps == 0:
            trained = dict(model.named_parameters())
            for name, parameter in self._copy.named_parameters():
                parameter.data.lerp_(trained[name].data.to(parameter.dtype), config.ref_model_mixup_alpha)

    def on_save(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """A copy that follows is part of what a training goes on from."""
        if self.config.sync_ref_model and ranks.is_first():
            tensors = {name: one.data.contiguous() for name, one in self._copy.named_parameters()}
            save_file(tensors, self._root / f"checkpoint-{state.global_step}" / FILE)
