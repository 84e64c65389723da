"""Puts a loss that projects for itself, or one over logits, into a causal language model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunemill.kernels.applied import Applied, told
from tunemill.kernels.modules import Function, in_place_of
from tunemill.kernels.projections import is_linear, is_quantized
from tunemill.kernels.proof import UnfitError, check_close, tolerance_of

CAP = "final_logit_softcapping"
# Standard deviation of logits at which every cap of logits in use (Gemma's is 30) changes the loss by tens of per cent.
LARGE_LOGITS = 60.0


class FusedHead(nn.Module):  # type: ignore[misc]
    """The output head of a model whose loss projects for itself.

    While `defers` (training, with gradients) it passes its input through, and `FusedLoss`, which is the model's
    loss function, makes logits and loss of it. At all other times it gives logits.
    """

    weight: Tensor
    softcap: float | None
    """Gemma 2's cap of the logits. The model must not cap again."""

    def defers(self) -> bool:
        """Whether a call now passes its input through."""
        return bool(self.training and torch.is_grad_enabled())

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., h) to logits (..., v); to itself while `defers`."""
        if self.defers():
            return hidden_states
        logits = functional.linear(hidden_states, self.weight)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


class FusedLoss:
    """The loss function of a model with a `FusedHead`, with the arguments that transformers' own takes."""

    def __init__(self, head: FusedHead, linear_cross_entropy: Function, otherwise: Function) -> None:
        self.head = head
        self.linear_cross_entropy = linear_cross_entropy
        self.otherwise = otherwise

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        vocab_size: int,
        num_items_in_batch: Tensor | int | None = None,
        ignore_index: int = -100,
        shift_labels: Tensor | None = None,
        **settings: Any,
    ) -> Tensor:
        """Mean loss over the trained tokens, or their sum over `num_items_in_batch`."""
        if not self.head.defers():
            settings |= {"num_items_in_batch": num_items_in_batch, "ignore_index": ignore_index}
            plain: Tensor = self.otherwise(
                logits, labels, vocab_size=vocab_size, shift_labels=shift_labels, **settings
            )
            return plain
        targets = shifted(labels, ignore_index) if shift_labels is None else shift_labels
        targets = targets.to(logits.device)
        mean: Tensor = self.linear_cross_entropy(
            logits, self.head.weight, targets, ignore_index=ignore_index, softcap=self.head.softcap
        )
        return of_items(mean, targets, num_items_in_batch, ignore_index)


class FusedLogitLoss:
    """A loss function over logits with the arguments of transformers' own, by `cross_entropy`."""

    def __init__(self, cross_entropy: Function) -> None:
        self.cross_entropy = cross_entropy

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        vocab_size: int,
        num_items_in_batch: Tensor | int | None = None,
        ignore_index: int = -100,
        shift_labels: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Mean loss over the trained tokens, or their sum over `num_items_in_batch`."""
        targets = shifted(labels, ignore_index) if shift_labels is None else shift_labels
        targets = targets.to(logits.device)
        flat = logits.reshape(-1, vocab_size)
        mean: Tensor = self.cross_entropy(flat, targets.reshape(-1), ignore_index=ignore_index)
        return of_items(mean, targets, num_items_in_batch, ignore_index)


def shifted(labels: Tensor, ignore_index: int) -> Tensor:
    """Labels (b, s) of tokens to labels of the tokens before them."""
    return functional.pad(labels, (0, 1), value=ignore_index)[..., 1:].contiguous()


def of_items(mean: Tensor, targets: Tensor, items: Tensor | int | None, ignore_index: int) -> Tensor:
    """A mean over this batch's trained tokens as its share of a mean over `items` tokens (None: as it is)."""
    if items is None:
        return mean
    count = (targets != ignore_index).sum()
    return mean * (count / items)


def replace_loss(
    model: nn.Module, functions: Mapping[str, Function], batch: Mapping[str, Tensor], applied: Applied
) -> None:
    """Put linear_cross_entropy or cross_entropy of `functions` into the model, proven on `batch`, or note why not."""
    name = next((n for n in ("linear_cross_entropy", "cross_entropy") if n in functions), None)
    if name is None:
        return
    causal = next((m for m in model.modules() if "loss_function" in dir(type(m))), None)
    caps = _caps(None if causal is None else vars(causal).get("config"))
    for capped in caps:
        if _replaced(model, functions[name], name, capped, batch, applied):
            return


def _replaced(
    model: nn.Module,
    function: Function,
    name: str,
    capped: dict[str, Any] | None,
    batch: Mapping[str, Tensor],
    applied: Applied,
) -> bool:
    """Whether the loss could be replaced, with this cap of the logits."""
    marker = len(applied.undoing)
    try:
        causal, place, head = _head_of(model)
        with told(f"{name} in the loss"):
            expected = _losses_and_gradients(model, head, batch)
            if name == "cross_entropy":
                made = head
                _set_loss(causal, FusedLogitLoss(function), applied)
            else:
                made = _fuse_head(model, causal, place, head, function, capped, applied)
            actual = _losses_and_gradients(model, made, batch)
            tolerance = tolerance_of(head, head.weight.dtype)
            for (loss, gradient), (own_loss, own_gradient) in zip(actual, expected, strict=True):
                check_close("loss", loss.float(), own_loss.float(), tolerance)
                if gradient is not None and own_gradient is not None:
                    check_close("gradient of the loss", gradient, own_gradient, tolerance)
    except UnfitError as error:
        applied.undo(down_to=marker)
        applied.refuse((name,), "the output head", str(error))
        return False
    applied.refusals.pop(name, None)
    applied.note((name,), place)
    return True


def _caps(config: Any) -> list[dict[str, Any] | None]:
    """Where the cap of the logits may be found; None is nowhere, and last: some have a cap that they ignore."""
    configs = [] if config is None else [config, config.get_text_config()]
    return [*(vars(c) for c in configs if vars(c).get(CAP) is not None), None]


def _head_of(model: nn.Module) -> tuple[Any, str, Any]:
    """The module with a loss function, the name of its output head, and the head, which may be an adapter's copy."""
    causal: Any = next((m for m in model.modules() if "loss_function" in dir(type(m))), None)
    head = None if causal is None else causal.get_output_embeddings()
    if head is None:
        raise UnfitError("the model has no output head with a loss function")
    place = next(name for name, module in model.named_modules() if module is head)
    if set(head._modules) == {"original_module", "modules_to_save"}:
        active = head.active_adapters[0]
        place, head = f"{place}.modules_to_save.{active}", head.modules_to_save[active]
    if not is_linear(head) or is_quantized(head.weight) or head.bias is not None:
        raise UnfitError("the output head is no plain linear layer without bias")
    return causal, place, head


def _set_loss(causal: Any, loss: Function, applied: Applied) -> None:
    applied.undoing.append(partial(setattr, causal, "loss_function", causal.loss_function))
    causal.loss_function = loss


def _fuse_head(
    model: nn.Module,
    causal: Any,
    place: str,
    head: nn.Module,
    function: Function,
    capped: dict[str, Any] | None,
    applied: Applied,
) -> FusedHead:
    """Put a `FusedHead` and its loss in place. It caps logits itself, so the model's own cap is off meanwhile."""
    softcap = None if capped is None else capped[CAP]
    made = in_place_of(FusedHead, head, softcap=softcap)
    # Trained from the first step on, also where the model itself is in evaluation mode while it is proven.
    made.training = True
    if capped is not None:
        # Some configs refuse None here when it is set as an attribute.
        applied.undoing.append(partial(capped.__setitem__, CAP, softcap))
        capped[CAP] = None
    applied.put_child(model, place, head, made)
    _set_loss(causal, FusedLoss(made, function, causal.loss_function), applied)
    return made


def _losses_and_gradients(
    model: nn.Module, head: nn.Module, batch: Mapping[str, Tensor]
) -> list[tuple[Tensor, Tensor | None]]:
    """The loss and its gradient; and the loss with logits so large that a cap of them shows."""
    # There the gradient is the rounding of a saturated tanh.
    return [
        _loss_and_gradient(model, head, batch, None),
        (_loss_and_gradient(model, head, batch, LARGE_LOGITS)[0], None),
    ]


def _loss_and_gradient(
    model: nn.Module, head: Any, batch: Mapping[str, Tensor], size: float | None
) -> tuple[Tensor, Tensor]:
    """The loss of `batch`, and its gradient by what the head is given, scaled to logits of this size."""
    inputs: list[Tensor] = []

    def as_leaf(_: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
        hidden = args[0].detach()
        if size is not None:
            hidden = hidden * (size / functional.linear(hidden, head.weight).float().std())
        inputs.append(hidden.to(args[0].dtype).requires_grad_())
        return (inputs[-1],)

    handle = head.register_forward_pre_hook(as_leaf)
    try:
        with torch.enable_grad():
            loss: Tensor = model(**batch, use_cache=False).loss
            (gradient,) = torch.autograd.grad(loss, inputs)
    finally:
        handle.remove()
    return loss.detach(), gradient
