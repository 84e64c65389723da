"""Proof that a folder holds a model in a scheme of compressed-tensors: by its files, by each weight, and by what it
computes. Nothing here is used by what exports; the readers are the bytes of the files and stock transformers.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.models.agreement_body import agreement
from tunemill.stages.models.exported_compressed.config import ExportedCompressedConfig
from tunemill.stages.models.exported_compressed.files_proof import Files, prove_files
from tunemill.stages.models.exported_compressed.layout import SEARCHED
from tunemill.stages.models.exported_compressed.weights_proof_body import TYPES, prove_weights
from tunemill.stages.models.exports import group_of
from tunemill.stages.models.finite import check_finite
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.rounded_proof_body import (
    LEAST_KL,
    PLACES,
    SAME,
    TIMES_CHANCE,
    Asked,
    Grid,
    disturb,
)
from tunemill.stages.models.words_proof_body import prove_words
from tunemill.stages.report import Scalar

KEY = "pipeline.export"
REMEDY = (
    "The folder is broken, or this scheme is too coarse for the model: export again, then try fp8-dynamic or more "
    "calibration_rows."
)
ASKED = Asked(KEY, "Export again.", REMEDY)
# The same as TIMES_CHANCE for GPTQ, whose errors are up to twice as large where tokens are none of those it looked at.
TIMES_CHANCE_SEARCHED = 8.0
# The same for how many tokens have another likeliest one: a multiple, and a share that is none.
TIMES_OTHERS, LEAST_OTHERS = 2.0, 0.05
# Tokens of a row that are looked at.
LONGEST = 512
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
    loaded = ASKED.reload(result)
    after = logits_of(loaded, ids)
    check_finite(KEY, "the largest logit of the exported model", float(after.abs().max()), plain.dtype)
    if measured is not None:
        figures |= ASKED.bounded(
            "max_abs_difference_reloaded", float((after - measured).abs().max()), SAME * largest
        )
    asked = [ids] if rows is None else held_out(rows)
    figures |= _prove_agreement(plain, loaded, config, files, asked)
    figures["compared_with"] = "fixed tokens" if rows is None else "held-out rows"
    return figures | {"proof": "partial", "proof_missing": MISSING}


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
    group, dtype = group_of(config.scheme, config.group_size), TYPES[config.scheme]
    of_inputs = None if config.scheme == "w4a16" else Grid(dtype, group)
    disturb(plain, [f"{module}.weight" for module in files.quantized], Grid(dtype, group), of_inputs)
    chance = agreement(_logits(plain, asked), before_rv)
    times = TIMES_CHANCE_SEARCHED if config.scheme in SEARCHED else TIMES_CHANCE
    others = TIMES_OTHERS * (1 - chance.top1) + LEAST_OTHERS
    return {
        **ASKED.bounded("kl_to_unquantized", found.kl, times * chance.kl + LEAST_KL),
        **ASKED.bounded("top1_disagreement", 1 - found.top1, others),
        "compared_tokens": found.tokens,
    }


def _logits(model: Any, asked: list[Tensor]) -> Tensor:
    """[R, V] behind every token, of so many as are looked at."""
    return torch.cat([logits_of(model, ids).flatten(0, 1) for ids in asked])[:PLACES]
