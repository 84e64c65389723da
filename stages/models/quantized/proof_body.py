"""Proof that a folder holds a model quantized: by its files, by each weight, and by what it computes.

Nothing here is used by what quantizes; the readers are the headers of the files and stock transformers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.errors import UserError
from tunemill.stages.models.agreement_body import Agreement, agreement, divergence
from tunemill.stages.models.finite import check_finite
from tunemill.stages.models.heads_body import auto_class, head_of_folder
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.quantization import FOUR_BIT_FLOATS, QuantizationSettings
from tunemill.stages.models.quantization_body import round_in_forward
from tunemill.stages.models.quantized.stored_proof import prove_files
from tunemill.stages.models.rounded_proof_body import (
    LEAST_KL,
    PLACES,
    SAME,
    TIMES_CHANCE,
    Asked,
    Grid,
    disturb,
)
from tunemill.stages.models.rounding_body import allowed_error
from tunemill.stages.models.words_proof_body import prove_words

# How far logits may be from those that a quantization-aware training had, as a share of the largest: the same products
# are computed with the same numbers, but for those of float types, which a GPU adds up in another order.
FORESEEN, FORESEEN_OF_FLOATS = 1e-3, 5e-2
REMEDY = (
    "The model is broken, or this type is too coarse for it: quantize again, then try a type with more bits or a "
    "smaller group_size."
)
ASKED = Asked("quantization", "Quantize again.", REMEDY)


@dataclass(frozen=True)
class Loaded:
    """The model as it was, and as stock transformers loads what was made of it."""

    plain: Any
    quantized: Any


def prove(
    source: Path,
    result: Path,
    settings: QuantizationSettings,
    *,
    trained: bool,
    rows: Path | None = None,
    measured: Tensor | None = None,
) -> dict[str, float | int]:
    """Figures of the proof with their bounds. `trained`: with the rounding that `qat` trained with.

    `rows` are held out; without them fixed tokens are looked at. `measured` are the logits of the fixed tokens before
    the model was saved. Raises UserError, with what is wrong, where a figure is beyond its bound.
    """
    prove_words(source, result)
    files = prove_files(source, result, settings, trained=trained)
    plain = auto_class(head_of_folder(source)).from_pretrained(source, dtype="auto").eval()
    ids = fixed_tokens(plain.config.get_text_config().vocab_size)
    before = logits_of(plain, ids)
    largest = float(before.abs().max())
    check_finite("quantization", "the largest logit of the model", largest, plain.dtype)
    loaded = Loaded(plain, ASKED.reload(result))
    error = _prove_weights(loaded, settings)
    after = logits_of(loaded.quantized, ids)
    check_finite(
        "quantization", "the largest logit of the quantized model", float(after.abs().max()), plain.dtype
    )
    figures: dict[str, float | int] = {
        "bytes_before": files.size_before,
        "bytes_after": files.size,
        "left_out_share": files.left_out,
        "bits_per_weight": files.bits,
        "max_abs_logit_difference": _difference(after, before),
        "max_abs_logit": largest,
        "largest_error_in_bounds": error,
    }
    if measured is not None:
        figures |= ASKED.bounded("max_abs_difference_reloaded", _difference(after, measured), SAME * largest)
    if head_of_folder(source) is None:
        figures |= _prove_agreement(loaded, settings, rows, ids, trained=trained)
    if trained:
        round_in_forward(plain, settings)
        allowed = FORESEEN_OF_FLOATS if settings.needs else FORESEEN
        found = _difference(after, logits_of(plain, ids))
        figures |= ASKED.bounded("max_abs_difference_to_training", found, allowed * largest)
    return figures


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _prove_weights(loaded: Loaded, settings: QuantizationSettings) -> float:
    """Every weight is the one before, or within its bound of it. Returns the largest error in such bounds: up to 1."""
    largest = 0.0
    with torch.no_grad():
        for name, found in loaded.quantized.named_parameters():
            weight = loaded.plain.get_parameter(name)
            if not hasattr(found, "qdata"):
                _check_kept(name, weight, found)
                continue
            error = (found.dequantize().float() - weight.float()).abs()
            relative = error / allowed_error(weight, settings.weight_dtype, settings.group).clamp(min=1e-30)
            worst = float(torch.nan_to_num(relative, nan=float("inf")).max())
            if worst > 1:
                row = int(relative.amax(-1).argmax())
                raise UserError(
                    f"quantization: {name}: in row {row} a stored number is {worst:.3g} times as far from the model's "
                    f"as rounding to {settings.weight_dtype} allows: its scale is another's, or its place. {REMEDY}"
                )
            largest = max(largest, worst)
    return largest


def _check_kept(name: str, weight: nn.Parameter, found: nn.Parameter) -> None:
    if weight.shape == found.shape and torch.equal(weight.to(found.dtype), found):
        return
    rows = (weight.to(found.dtype) != found).reshape(found.shape[0], -1).any(-1).nonzero()
    raise UserError(
        f"quantization: {name} is stored as it was, and {len(rows)} of its {found.shape[0]} rows are others, the first "
        f"is {int(rows[0])}. Quantize again."
    )


def _prove_agreement(
    loaded: Loaded, settings: QuantizationSettings, rows: Path | None, ids: Tensor, *, trained: bool
) -> dict[str, float | int]:
    """What the quantized model says of held-out tokens, beside the model before; and a model with errors of chance.

    What was trained for its rounding has no such bound: it is compared with the training instead.
    """
    batches = [{"input_ids": ids}] if rows is None else _batches(rows)
    before_rv = _log_p(loaded.plain, batches)
    found_rv = _log_p(loaded.quantized, batches)
    found = agreement(found_rv, before_rv)
    figures = _figures(found)
    figures["compared_tokens_held_out"] = 0 if rows is None else found.tokens
    if trained:
        return figures
    _disturb(loaded, settings)
    chance_rv = _log_p(loaded.plain, batches)
    if not any(".experts." in name for name, _ in loaded.plain.named_parameters()):
        bound = TIMES_CHANCE * agreement(chance_rv, before_rv).kl + LEAST_KL
        return figures | ASKED.bounded("kl_to_unquantized", found.kl, bound)
    # A token that goes to another expert moves logits far, and there are few of them: the mean is a matter of chance.
    found_kl, chance_kl = (float(divergence(rv, before_rv)[0].median()) for rv in (found_rv, chance_rv))
    return figures | ASKED.bounded("median_kl_to_unquantized", found_kl, TIMES_CHANCE * chance_kl + LEAST_KL)


def _disturb(loaded: Loaded, settings: QuantizationSettings) -> None:
    """Errors of chance in the model before, wherever the other one is rounded."""
    names = [name for name, found in loaded.quantized.named_parameters() if hasattr(found, "qdata")]
    of_inputs = None
    if settings.activation_dtype is not None:
        group = settings.group if settings.activation_dtype in FOUR_BIT_FLOATS else None
        of_inputs = Grid(settings.activation_dtype, group)
    disturb(loaded.plain, names, Grid(settings.weight_dtype, settings.group), of_inputs)


def _figures(found: Agreement) -> dict[str, float | int]:
    return {
        "kl_to_unquantized": found.kl,
        "top1_agreement": found.top1,
        "compared_tokens": found.tokens,
    }


def _batches(path: Path) -> list[dict[str, Tensor]]:
    """The first held-out rows, one in a batch, with as many trained tokens as are looked at."""
    rows, padded, found, places = Rows(path), Collator("padded", None), [], 0
    for row in range(len(rows)):
        if places >= PLACES:
            break
        found.append(padded([[(rows.ids(row), rows.labels(row))]]))
        places += int((rows.labels(row)[1:] != IGNORED).sum())
    return found


def _log_p(model: Any, batches: list[dict[str, Tensor]]) -> Tensor:
    """[R, V] log-probabilities behind the trained tokens, or behind all where there are no labels."""
    found = []
    with torch.no_grad():
        for batch in batches:
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            logits_blv = model(**inputs, use_cache=False).logits.float()
            if "labels" in batch:
                found.append(logits_blv[:, :-1][batch["labels"][:, 1:] != IGNORED])
            else:
                found.append(logits_blv.flatten(0, 1))
    return torch.cat(found)[:PLACES].log_softmax(-1)
