"""Puts a loss that projects for itself, or one over logits, into a causal language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunemill.kernels.in_models.applied import Applied, told
from tunemill.kernels.in_models.modules import Function, in_place_of
from tunemill.kernels.in_models.projections import is_linear, is_quantized
from tunemill.kernels.in_models.proof import UnfitError, check_close, tolerance_of

CAP = "final_logit_softcapping"
# Standard deviation of logits at which every cap of logits in use (Gemma's is 30) changes the loss by tens of per cent.
LARGE_LOGITS = 60.0
OUTPUT_HEAD = "the output head"


@dataclass(frozen=True)
class Site:
    """The module with a loss function, and its output head, which may be an adapter's copy, by its name."""

    causal: Any
    name: str
    head: Any


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
    try:
        site = _site_of(model)
    except UnfitError as error:
        applied.refuse((name,), OUTPUT_HEAD, str(error))
        return
    for capped in _caps(site.causal.config):
        marker = len(applied.undoing)
        try:
            _prove(model, site, name, functions[name], capped, batch, applied)
        except UnfitError as error:
            applied.undo(down_to=marker)
            applied.refuse((name,), OUTPUT_HEAD, str(error))
        else:
            applied.refusals.pop(name, None)
            applied.note((name,), site.name)
            return


def _prove(
    model: nn.Module,
    site: Site,
    name: str,
    function: Function,
    capped: dict[str, Any] | None,
    batch: Mapping[str, Tensor],
    applied: Applied,
) -> None:
    """Put the loss in place, with this cap of the logits; raises UnfitError where it is another loss."""
    with told(f"{name} in the loss"):
        expected = _losses_and_gradients(model, site.head, batch)
        if name == "cross_entropy":
            made = site.head
            _set_loss(site.causal, FusedLogitLoss(function), applied)
        else:
            made = _fuse_head(model, site, function, capped, applied)
        actual = _losses_and_gradients(model, made, batch)
        tolerance = tolerance_of(site.head, site.head.weight.dtype)
        for (what, left), (_, right) in zip(actual, expected, strict=True):
            check_close(what, left, right, tolerance)


def _caps(config: Any) -> list[dict[str, Any] | None]:
    """Where the cap of the logits may be found; None is nowhere, and last: some have a cap that they ignore."""
    configs = (vars(config), vars(config.get_text_config()))
    return [*(found for found in configs if found.get(CAP) is not None), None]


def _site_of(model: nn.Module) -> Site:
    """Raises UnfitError where there is no loss function, or no plain output head."""
    causal: Any = next((m for m in model.modules() if "loss_function" in dir(type(m))), None)
    head = None if causal is None else causal.get_output_embeddings()
    if head is None:
        raise UnfitError("the model has no output head with a loss function")
    name = next(name for name, module in model.named_modules() if module is head)
    if set(head._modules) == {"original_module", "modules_to_save"}:
        active = head.active_adapters[0]
        name, head = f"{name}.modules_to_save.{active}", head.modules_to_save[active]
    if not is_linear(head) or is_quantized(head.weight) or head.bias is not None:
        raise UnfitError("the output head is no plain linear layer without bias")
    return Site(causal, name, head)


def _set_loss(causal: Any, loss: Function, applied: Applied) -> None:
    applied.undoing.append(partial(setattr, causal, "loss_function", causal.loss_function))
    causal.loss_function = loss


def _fuse_head(
    model: nn.Module, site: Site, function: Function, capped: dict[str, Any] | None, applied: Applied
) -> FusedHead:
    """Put a `FusedHead` and its loss in place. It caps logits itself, so the model's own cap is off meanwhile."""
    softcap = None if capped is None else capped[CAP]
    made = in_place_of(FusedHead, site.head, softcap=softcap)
    # Trained from the first step on, also where the model itself is in evaluation mode while it is proven.
    made.training = True
    if capped is not None:
        # Some configs refuse None here when it is set as an attribute.
        applied.undoing.append(partial(capped.__setitem__, CAP, softcap))
        capped[CAP] = None
    applied.put_child(model, site.name, site.head, made)
    _set_loss(site.causal, FusedLoss(made, function, site.causal.loss_function), applied)
    return made


def _losses_and_gradients(
    model: nn.Module, head: Any, batch: Mapping[str, Tensor]
) -> list[tuple[str, Tensor]]:
    """The loss and its gradients; and the loss with logits so large that a cap of them shows."""
    loss, gradient, of_rows = _loss_and_gradients(model, head, batch, None)
    # Where logits are large, gradients are the rounding of a saturated tanh.
    large, _, _ = _loss_and_gradients(model, head, batch, LARGE_LOGITS)
    found = [("loss", loss), ("gradient of the loss", gradient), ("loss", large)]
    return found if of_rows is None else [*found, ("gradient of the output head", of_rows)]


def _loss_and_gradients(
    model: nn.Module, head: Any, batch: Mapping[str, Tensor], size: float | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The loss of `batch`, and its gradients by what the head is given, scaled to logits of this size, and by
    those rows of the head's weight that are labels, if it is trained."""
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
            weights = [head.weight] if head.weight.requires_grad and size is None else []
            gradient, *of_weight = torch.autograd.grad(loss, [*inputs, *weights])
    finally:
        handle.remove()
    labels = batch["labels"]
    of_rows = of_weight[0][labels[labels >= 0].unique()] if of_weight else None
    return loss.detach().float(), gradient, of_rows
