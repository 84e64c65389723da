"""What the policy is, as a digest, and what it says of tokens."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tunemill.kernels.functions.selective_log_softmax import selective_log_softmax
from tunemill.stages.models.answers_body import takes_logits_to_keep
from tunemill.stages.models.wrapped_body import uncompiled
from tunemill.stages.training.method import Batch

# Numbers of a piece, and the odd number that their places are weighted with: a change of any bit, or of the order of
# any two numbers, changes the sum.
PIECE = 1 << 22
ODD = 0x9E3779B97F4A7C15 - (1 << 64)
KINDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def digest_of(model: Any) -> str:
    """16 hexadecimal digits of the weights that are trained: other ones where a bit of any of them differs.

    Sums of whole numbers, so that a device gives the same in any order, at the speed of its memory.
    """
    sums: list[Tensor] = []
    names = []
    for name, parameter in uncompiled(model).named_parameters():
        if not parameter.requires_grad:
            continue
        names.append(name)
        bits = parameter.detach().contiguous().view(KINDS[parameter.element_size()]).flatten()
        for piece in bits.split(PIECE):
            places = torch.arange(1, len(piece) + 1, device=piece.device) * ODD
            sums.append((piece.long() * places).sum())
    numbers = torch.stack([one.cpu() for one in sums]).tolist() if sums else []
    return hashlib.sha256(repr((names, numbers)).encode()).hexdigest()[:16]


@contextmanager
def asked(model: Any) -> Iterator[Any]:
    """The model to sample or to ask: without gradient, and in evaluation mode, where no layer is computed again for a
    backward pass and none keeps its cache from the next token; afterwards as it was.
    """
    plain = uncompiled(model)
    was_training = plain.training
    plain.eval()
    try:
        with torch.no_grad():
            yield plain
    finally:
        plain.train(was_training)


def completion_log_p(
    model: Any, batch: Batch, temperature: float, *, with_gradient_of_entropy: bool = False
) -> tuple[Tensor, Tensor]:
    """[B, T] log-probabilities of the tokens of completions, and the entropy at each of them, in nats.

    Of `input_ids` [B, L], a prompt of `prompt_tokens` [B] and its completion in a row, padded on the right;
    `mask` [B, T] has a column for each token of the longest completion. Both are of logits / temperature; behind a
    completion they say nothing.
    """
    ids_bl, prompt_b = batch["input_ids"], batch["prompt_tokens"]
    longest = batch["mask"].shape[1]
    # A token is predicted at the place before it, and no place before the shortest prompt's last token is needed.
    kept = ids_bl.shape[1] - int(prompt_b.min()) + 1
    arguments = {"input_ids": ids_bl, "attention_mask": batch["attention_mask"], "use_cache": False}
    if takes_logits_to_keep(model):
        arguments["logits_to_keep"] = kept
    logits_bkv = model(**arguments).logits[:, -kept:-1]
    if temperature != 1:
        logits_bkv = logits_bkv / temperature
    log_p_bk = selective_log_softmax(logits_bkv, ids_bl[:, -kept + 1 :])
    with torch.set_grad_enabled(with_gradient_of_entropy and torch.is_grad_enabled()):
        entropy_bk = torch.stack([entropy_of(logits_kv) for logits_kv in logits_bkv])
    first_b1 = (prompt_b - prompt_b.min())[:, None]
    places_bt = first_b1 + torch.arange(longest, device=ids_bl.device)
    places_bt = places_bt.clamp(max=kept - 2)
    return log_p_bk.gather(1, places_bt), entropy_bk.gather(1, places_bt)


def entropy_of(logits_kv: Tensor) -> Tensor:
    """[K] entropies, in nats, of the distributions that K rows of logits stand for."""
    log_p_kv = logits_kv.float().log_softmax(-1)
    return -(log_p_kv.exp() * log_p_kv).sum(-1)
