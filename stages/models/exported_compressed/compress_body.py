"""Has llm-compressor quantize a loaded model, on rows of its own training data."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from tunemill.stages.artifacts import TrainingData
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.errors import UserError
from tunemill.stages.models.exported_compressed.config import ExportedCompressedConfig
from tunemill.stages.models.exported_compressed.layout import SEARCHED
from tunemill.stages.models.heads_body import output_modules

# What llm-compressor calls the schemes.
NAMES = {"fp8-dynamic": "FP8_DYNAMIC", "w4a16": "W4A16", "w8a8": "W8A8", "nvfp4": "NVFP4"}


def calibration_rows(data: TrainingData, count: int, seed: int) -> list[list[int]]:
    """Token ids of `count` rows that `seed` chooses, in the order of the file; of all where there are fewer."""
    rows = Rows(data.rows)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows.ids(int(row)).tolist() for row in sorted(chosen)]


def compress(
    model: Any, tokenizer: Any, config: ExportedCompressedConfig, rows: list[list[int]] | None
) -> int:
    """Round the model in place: it computes with the rounded numbers afterwards. Returns how many modules are rounded.

    `rows`: token ids that are looked at. Raises UserError where nothing was rounded.
    """
    from llmcompressor import oneshot
    from loguru import logger

    # Switching its log off by its own variable makes llm-compressor 0.14 fail: it then lacks a level that it logs at.
    logger.remove()

    given: dict[str, Any] = {}
    if rows is not None:
        from datasets import Dataset

        columns = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
        given = {
            "dataset": Dataset.from_dict(columns),
            "num_calibration_samples": len(rows),
            "max_seq_length": max(map(len, rows)),
            "shuffle_calibration_samples": False,
        }
    with redirect_stdout(sys.stderr):
        oneshot(model=model, processor=tokenizer, recipe=_recipe(model, config), **given)
    rounded = sum(hasattr(module, "quantization_scheme") for module in model.modules())
    if not rounded:
        raise UserError(
            f"pipeline.export: {config.scheme}: llm-compressor has found no linear module in this model, so nothing "
            f"would be quantized. Take this export out."
        )
    return rounded


def _recipe(model: Any, config: ExportedCompressedConfig) -> Any:
    """All linear modules but the output head."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    heads = {id(module) for module in output_modules(model)}
    kept = [name for name, module in model.named_modules() if id(module) in heads]
    kind = GPTQModifier if config.scheme in SEARCHED else QuantizationModifier
    if config.scheme != "w4a16":
        return kind(targets="Linear", scheme=NAMES[config.scheme], ignore=kept)
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": config.group_size,
    }
    return kind(config_groups={"group_0": {"targets": ["Linear"], "weights": weights}}, ignore=kept)


def save(model: Any, target: Path) -> None:
    """Write config and weights as compressed-tensors stores them."""
    with redirect_stdout(sys.stderr):
        model.save_pretrained(target)
    # What llm-compressor was asked for stands in config.json as well.
    (target / "recipe.yaml").unlink(missing_ok=True)
