"""A quantized base as the frozen part of a training."""

from pathlib import Path
from typing import Any

from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft.tuners.lora.layer import ParamWrapper

from tunemill.stages.errors import SettingError
from tunemill.stages.models.experts_body import BLOCK, Bits, pack_experts
from tunemill.stages.models.loading_body import quantization_of
from tunemill.stages.report import Report
from tunemill.stages.training.keys.adapter import AdapterKeys
from tunemill.stages.training.keys.in_parts import UNPROVEN
from tunemill.stages.training.sharding import Sharding


def check_quantized(config: AdapterKeys, model: Any) -> None:
    """Raises SettingError where a quantized base cannot be the frozen part.

    Norms keep the type of the loaded weights, as beside any other adapter: PEFT would raise them to float32, and the
    fused kernels fit no layer of two types.
    """
    if config.adapter is None:
        raise SettingError(
            "adapter: unset, so every weight would be trained, and those of this base are quantized. Set adapter: "
            "lora, or start from the model in full precision."
        )
    uneven = [
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear4bit)
        and module.weight.device.type == "cpu"
        and module.in_features % BLOCK
    ]
    if uneven:
        raise SettingError(
            f"base_model: {len(uneven)} modules are in 4 bits, such as {uneven[0]}, with a number of inputs that is no "
            f"multiple of {BLOCK}. bitsandbytes does not read these on a CPU. Train on a GPU."
        )


def check_quantized_parts(sharding: Sharding, model: Any, report: Report) -> None:
    """Raises SettingError for a base in 8 bits that processes would share; tells of weights that each keeps whole."""
    if sharding.in_parts and any(isinstance(module, Linear8bitLt) for module in model.modules()):
        raise SettingError(f"base_model: a base in 8 bits {UNPROVEN}. Take one in 4 bits.")
    packed = [module.weight for module in model.modules() if isinstance(module, Linear4bit)]
    whole = [weight for weight in packed if not weight.is_floating_point()]
    if not (sharding.splits and whole):
        return
    stored = f"weights in 4 bits that are stored as {str(whole[0].dtype).removeprefix('torch.')}"
    if sharding.zero is not None:
        raise SettingError(
            f"base_model: {stored}: this has not been proven with ZeRO-3. Use fsdp_version: 2."
        )
    report.log(
        f"{len(whole)} {stored} cannot be shared out: each process keeps them whole. A base that is stored as bfloat16 "
        f"(bnb_4bit_quant_storage), as Tunemill stores it, is shared"
    )


def hold_experts_packed(folder: Path, model: Any) -> None:
    """Put rounded experts into their bits, but for those that got an adapter, of which PEFT reads the parameters."""
    stored = quantization_of(folder) or {}
    kind: Bits = "int8" if stored.get("load_in_8bit") else stored.get("bnb_4bit_quant_type", "nf4")
    wrapped = [module.get_base_layer() for module in model.modules() if isinstance(module, ParamWrapper)]
    if not wrapped:
        pack_experts(model.get_base_model(), kind)
