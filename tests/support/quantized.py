"""Tiny bases in 4 or 8 bits."""

from pathlib import Path
from typing import Any

import torch

from support.tiny_model import Heard, make_model, workspace
from tunemill.stages.artifacts import BaseModel, QuantizedBase
from tunemill.stages.models.quantized_base.body import quantize_base
from tunemill.stages.models.quantized_base.config import QuantizedBaseConfig

# In 4 bits a row of a weight is a multiple of 64.
WIDE = {"hidden_size": 64, "intermediate_size": 128}


def make_base(folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> BaseModel:
    """A tiny base wide enough to be quantized."""
    return BaseModel(make_model(folder, dtype=dtype, **{**WIDE, **changes}))


def quantized(folder: Path, base: BaseModel, **settings: Any) -> tuple[QuantizedBase, Heard]:
    """The base as the stage quantizes it."""
    out, heard = workspace(folder), Heard()
    config = QuantizedBaseConfig(**(settings or {"load_in_4bit": True}))
    quantize_base(config, base_model=base, out=out, report=heard.report)
    return QuantizedBase(out.data), heard
