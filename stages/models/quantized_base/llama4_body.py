"""Llama 4's experts in 4 bits: as linear modules, which is how transformers loads a stored model in bits."""

from typing import Any

from bitsandbytes.nn.modules import Linear4bit, Params4bit
from transformers import BitsAndBytesConfig

from tunemill.stages.errors import SettingError
from tunemill.stages.models.linear_experts_body import linear_experts, split_experts
from tunemill.stages.models.linearized import KEY


def pack_linear_experts(asked: bool, model: Any, settings: BitsAndBytesConfig) -> None:
    """Put linear modules in 4 bits in place of the experts. Raises SettingError where the key does not ask for that."""
    if not asked or not settings.load_in_4bit:
        bits = "load_in_4bit" if settings.load_in_4bit else "load_in_8bit"
        wanted = f"{KEY}: true" if settings.load_in_4bit else f"load_in_4bit: true with {KEY}: true"
        raise SettingError(
            f"{bits}: true: transformers loads a Llama 4 in bits with its experts as linear modules. Set {wanted}, or "
            f"train on the model in 16 bits."
        )
    split_experts(model)
    for expert, part, module in list(linear_experts(model)):
        packed = Linear4bit(  # type: ignore[no-untyped-call]
            module.in_features,
            module.out_features,
            bias=False,
            compute_dtype=settings.bnb_4bit_compute_dtype,
            compress_statistics=settings.bnb_4bit_use_double_quant,
            quant_type=settings.bnb_4bit_quant_type,
            quant_storage=settings.bnb_4bit_quant_storage,
            device="meta",
        )
        packed.weight = Params4bit(
            module.weight.data,
            requires_grad=False,
            compress_statistics=settings.bnb_4bit_use_double_quant,
            quant_type=settings.bnb_4bit_quant_type,
            quant_storage=settings.bnb_4bit_quant_storage,
        ).to("cpu")
        packed.quant_state = packed.weight.quant_state
        setattr(expert, part, packed)
