"""What a model adds to the mean over tokens: a mixture of experts, how unevenly it routes them.

It does so once in each call, whatever part of a step it is called for, so this part of a loss takes another division
than the tokens.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.errors import SettingError

# The key of config.json with which a mixture of experts adds its loss.
BALANCES = "output_router_logits"
# How the keys end with which models weigh what they add.
WEIGHTS = ("loss_coef", "loss_coefficient")
PROBE_TOKENS = 6


@dataclass(frozen=True)
class ModelLoss:
    """How a model computes its loss.

    `divides_by_items`: the sum over tokens by the number that it is told, not by that of its micro batch. `adds`: it
    adds something to that.
    """

    divides_by_items: bool
    adds: bool


class AddedLoss:
    """A model as a method's own loss calls it, for logits. What the model adds to its loss is kept in `terms`.

    The model's loss function must be `loss_of_no_token`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.terms: list[Tensor] = []

    def __call__(self, **arguments: Any) -> Any:
        """The model's outputs."""
        labels = torch.full_like(arguments["input_ids"], IGNORED)
        outputs = self._model(**{**arguments, "labels": labels})
        if torch.is_grad_enabled():
            self.terms.append(outputs.loss)
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def mean(self) -> Tensor:
        """Of the calls that are trained."""
        return torch.stack(self.terms).mean()


def loss_of_no_token(logits: Tensor, *_: Any, **_settings: Any) -> Tensor:
    """In place of a model's loss function, it leaves of the loss what the model adds."""
    return logits.new_zeros((), dtype=torch.float32)


def probe_loss(plain: Any, takes_items: bool, autocast_dtype: torch.dtype | None) -> ModelLoss:
    """Ask a model, out of its adapter and on its device, for the loss of a few tokens; it is left as it was.

    `takes_items`: whether it takes the number of tokens to divide by.
    """
    heard: list[Mapping[str, Any]] = []

    def listen(logits: Tensor, *_: Any, **settings: Any) -> Tensor:
        heard.append(settings)
        return loss_of_no_token(logits)

    with torch.no_grad():
        items = {"num_items_in_batch": PROBE_TOKENS} if takes_items else {}
        loss = _probe(plain, listen, autocast_dtype, items)
    # Of a model that has its loss elsewhere, nothing says what belongs to the tokens.
    return ModelLoss(
        divides_by_items=any("num_items_in_batch" in settings for settings in heard),
        adds=bool(heard) and bool(loss != 0),
    )


def counts_padding(plain: Any, autocast_dtype: torch.dtype | None) -> bool:
    """Whether what a model adds to its loss has a gradient by tokens behind the end of the attention mask."""
    embedded: list[Tensor] = []

    def keep(_: Any, _args: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    handle = plain.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad():
            loss = _probe(plain, loss_of_no_token, autocast_dtype, {})
    finally:
        handle.remove()
    gradients = torch.autograd.grad(loss, embedded, allow_unused=True)
    return any(bool(one_blh[:, PROBE_TOKENS // 2 :].any()) for one_blh in gradients if one_blh is not None)


def _probe(
    plain: Any,
    loss_function: Callable[..., Tensor],
    autocast_dtype: torch.dtype | None,
    items: dict[str, int],
) -> Any:
    """The loss of a few tokens, half of them padding, with this function in the place of the model's own."""
    device = next(plain.parameters()).device
    ids = torch.arange(1, PROBE_TOKENS + 1, device=device)[None]
    mask = (ids <= PROBE_TOKENS // 2).long()
    under = nullcontext() if autocast_dtype is None else torch.autocast(device.type, autocast_dtype)
    was_training, kept = plain.training, plain.loss_function
    plain.eval()
    plain.loss_function = loss_function
    try:
        with under:
            return plain(input_ids=ids, attention_mask=mask, labels=ids, **items).loss
    finally:
        plain.loss_function = kept
        plain.train(was_training)


def balances_experts(model: Any) -> bool:
    """Whether a model's config asks for the balance of its experts, over the tokens of an attention mask."""
    return bool(getattr(model.config.get_text_config(), BALANCES, False))


def check_added_loss(plain: Any, autocast_dtype: torch.dtype | None, reentrant: bool) -> None:
    """Raise SettingError for a model whose added loss would be another one than its config says.

    `reentrant`: its layers are checkpointed so that only their outputs pass a gradient on.
    """
    name = type(plain).__name__
    if not balances_experts(plain) or counts_padding(plain, autocast_dtype):
        settings = plain.config.get_text_config().to_dict()
        keys = [f"{key}: 0" for key, value in settings.items() if key.endswith(WEIGHTS) and value]
        raise SettingError(
            f"{name} adds a loss of its own to that of the tokens, in which padding counts, so it would depend on how "
            f"rows are cut into batches. Switch it off in the model's config, with overrides_of_model_config: "
            f"{{{', '.join(keys)}}}."
        )
    if reentrant:
        raise SettingError(
            f"gradient_checkpointing_kwargs: with use_reentrant: true, the balance of experts that {name} adds to the "
            f"loss trains nothing. Set use_reentrant: false in it, or leave the balance out, with "
            f"overrides_of_model_config: {{{BALANCES}: false}}."
        )


def keep_mask_for_balance(plain: Any) -> None:
    """Where position ids say where rows begin, hide an attention mask from all but the balance of experts.

    Under a mask, transformers does not look for rows in position ids, and they would see each other.
    """

    def hide(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        packed = given.get("position_ids") is not None and given.get("attention_mask") is not None
        return args, {**given, "attention_mask": None} if packed else given

    plain.base_model.register_forward_pre_hook(hide, with_kwargs=True)
