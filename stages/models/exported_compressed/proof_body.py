"""Proof that a folder holds a model in a scheme of compressed-tensors: by its files, by each weight, and by what it
computes. Nothing here is used by what exports; the readers are the bytes of the files and stock transformers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.errors import UserError
from tunemill.stages.models.agreement_body import agreement
from tunemill.stages.models.exported_compressed.config import ExportedCompressedConfig
from tunemill.stages.models.exported_compressed.files_proof import Files, prove_files
from tunemill.stages.models.exported_compressed.layout import SEARCHED, group_of
from tunemill.stages.models.exported_compressed.weights_proof_body import TYPES, prove_weights
from tunemill.stages.models.exports import Scheme
from tunemill.stages.models.finite import check_finite
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.rounding_body import noise
from tunemill.stages.models.words_proof_body import prove_words
from tunemill.stages.report import Scalar

KEY = "pipeline.export"
# How far logits may be from those before saving, as a share of the largest.
SAME = 1e-4
# KL to the model before, in multiples of what chance does with rounding errors of the same size: errors twice as large
# have about four times the KL, and GPTQ's are up to that where tokens are none of those it looked at. Below the last
# nothing is a fault.
TIMES_CHANCE, TIMES_CHANCE_SEARCHED, LEAST_KL = 4.0, 8.0, 1e-4
# The same for how many tokens have another likeliest one: a multiple, and a share that is none.
TIMES_OTHERS, LEAST_OTHERS = 2.0, 0.05
# Held-out tokens that are looked at, and of a row.
PLACES, LONGEST = 1024, 512
MISSING = (
    "vLLM, for which the folder is made, has not read it: stock transformers and the bytes of the files have"
)


def prove(
    source: Path,
    result: Path,
    config: ExportedCompressedConfig,
    *,
    rows: Path | None = None,
    measured: Tensor | None = None,
) -> dict[str, Scalar]:
    """Figures of the proof with their bounds.

    `rows` are held out; without them fixed tokens are looked at. `measured` are the logits of the fixed tokens before
    the model was saved. Raises UserError, with what is wrong, where a figure is beyond its bound.
    """
    prove_words(source, result, KEY)
    files = prove_files(source, result, config.scheme, config.group_size)
    figures: dict[str, Scalar] = {"bytes_before": files.size_before, "bytes_after": files.size}
    figures |= prove_weights(source, result, config.scheme, config.group_size, files)
    plain = AutoModelForCausalLM.from_pretrained(source, dtype="auto").eval()
    ids = fixed_tokens(plain.config.get_text_config().vocab_size)
    largest = float(logits_of(plain, ids).abs().max())
    check_finite(KEY, "the largest logit of the model", largest, plain.dtype)
    loaded = reload(result)
    after = logits_of(loaded, ids)
    check_finite(KEY, "the largest logit of the exported model", float(after.abs().max()), plain.dtype)
    if measured is not None:
        figures |= _bounded(
            "max_abs_difference_reloaded", float((after - measured).abs().max()), SAME * largest
        )
    asked = [ids] if rows is None else held_out(rows)
    figures |= _prove_agreement(plain, loaded, config, files, asked)
    figures["compared_with"] = "fixed tokens" if rows is None else "held-out rows"
    return figures | {"proof": "partial", "proof_missing": MISSING}


def reload(result: Path) -> Any:
    """As anybody would load it. Raises UserError where weights are not in the files."""
    model, told = AutoModelForCausalLM.from_pretrained(result, dtype="auto", output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, told[what])):
            raise UserError(
                f"{KEY}: stock transformers loads the result with {what.replace('_', ' ')}: {names[0]}. Export again."
            )
    return model.eval()


def held_out(path: Path) -> list[Tensor]:
    """[1, L] ids of the first held-out rows, with as many trained tokens as are looked at."""
    rows, found, places = Rows(path), [], 0
    for row in range(len(rows)):
        if places >= PLACES:
            break
        found.append(torch.from_numpy(rows.ids(row)[:LONGEST].copy()).long()[None])
        places += int((rows.labels(row)[1:LONGEST] != IGNORED).sum())
    return found


def _prove_agreement(
    plain: Any, loaded: Any, config: ExportedCompressedConfig, files: Files, asked: list[Tensor]
) -> dict[str, Scalar]:
    """What the exported model says beside the model before, and a model with errors of chance."""
    before_rv = _logits(plain, asked)
    found = agreement(_logits(loaded, asked), before_rv)
    chance = agreement(
        _with_chance(plain, config.scheme, group_of(config.scheme, config.group_size), files, asked),
        before_rv,
    )
    times = TIMES_CHANCE_SEARCHED if config.scheme in SEARCHED else TIMES_CHANCE
    others = TIMES_OTHERS * (1 - chance.top1) + LEAST_OTHERS
    return {
        **_bounded("kl_to_unquantized", found.kl, times * chance.kl + LEAST_KL),
        **_bounded("top1_disagreement", 1 - found.top1, others),
        "compared_tokens": found.tokens,
    }


def _logits(model: Any, asked: list[Tensor]) -> Tensor:
    """[R, V] behind every token, of so many as are looked at."""
    return torch.cat([logits_of(model, ids).flatten(0, 1) for ids in asked])[:PLACES]


def _with_chance(plain: Any, scheme: Scheme, group: int | None, files: Files, asked: list[Tensor]) -> Tensor:
    """The same of the model before with an error of up to half a step in each number that is rounded; the model has
    these errors afterwards.
    """
    random, hooks = torch.Generator().manual_seed(0), []
    of_inputs = None if scheme == "w4a16" else TYPES[scheme]

    def disturb(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] + noise(inputs[0], of_inputs or "", group, random), *inputs[1:])

    with torch.no_grad():
        for module in (plain.get_submodule(name) for name in files.quantized):
            module.weight += noise(module.weight, TYPES[scheme], group, random)
            if of_inputs is not None:
                hooks.append(module.register_forward_pre_hook(disturb))
    found_rv = _logits(plain, asked)
    for hook in hooks:
        hook.remove()
    return found_rv


def _bounded(name: str, found: float, bound: float) -> Mapping[str, Scalar]:
    """The figure and its bound. Raises UserError where it is beyond."""
    if not found <= bound:
        raise UserError(
            f"{KEY}: {WORDS[name]}: {found:g}, and at most {bound:g} is rounding. The folder is broken, or this scheme "
            f"is too coarse for the model: export again, then try fp8-dynamic or more calibration_rows."
        )
    return {name: found, f"{name}_bound": bound}


WORDS = {
    "max_abs_difference_reloaded": "what stock transformers loads has other logits than what was saved",
    "kl_to_unquantized": "KL from the unquantized model, in nats, is more than such rounding makes by chance",
    "top1_disagreement": "the share of tokens after which another one is likeliest is more than chance makes",
}
