"""Which precision and attention this machine can honour; asked before any weight is read."""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils.ao import convert_model_to_fp8_ao
from torchao.float8 import Float8LinearConfig
from torchao.float8.float8_linear import Float8Linear
from transformers.utils import (
    is_flash_attn_2_available,
    is_flash_attn_3_available,
    is_flash_attn_4_available,
    is_kernels_available,
)

from tunemill.stages.errors import SettingError
from tunemill.stages.training.keys.attention import AttentionKeys
from tunemill.stages.training.keys.precision import PrecisionKeys
from tunemill.stages.training.keys.training import TrainingKeys


@dataclass(frozen=True)
class Precision:
    """`weights`: type in which the model is loaded; the flags are those of the Trainer."""

    weights: Any
    bf16: bool = False
    fp16: bool = False
    fp8: bool = False

    @property
    def autocast(self) -> Any:
        """Type of the autocast that the Trainer runs the model under; None is none."""
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else None


def choose_precision(config: PrecisionKeys, *, has_factors: bool) -> Precision:
    """The precision asked for; `has_factors`: what is trained are low-rank factors beside the weights.

    `bf16: auto` is bfloat16 or else float16 on a GPU, float32 without one.

    Raises SettingError for float16 or TF32 without a GPU that has it.
    """
    gpu = torch.cuda.is_available()
    if config.fp16 and not gpu:
        raise SettingError(
            "fp16: true needs a GPU, and this machine has none. Use bf16: true or float32: true."
        )
    if config.tf32 and not (gpu and torch.cuda.get_device_capability()[0] >= 8):
        raise SettingError(
            "tf32: true needs an NVIDIA GPU from Ampere on, and this machine has none. Remove tf32."
        )
    if config.fp8:
        if not (gpu and torch.cuda.get_device_capability() >= (8, 9)):
            raise SettingError(
                "fp8: true needs an NVIDIA GPU from Ada or Hopper on, and this machine has none. Use bf16: true."
            )
        return Precision(torch.bfloat16, bf16=True, fp8=True)
    if config.float16:
        return Precision(torch.float16)
    if config.is_pure_bfloat16:
        return Precision(torch.bfloat16)
    if config.float32 or (config.bf16 is False and not config.fp16):
        return Precision(torch.float32)
    if config.bf16 is True:
        if gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise SettingError("bf16: true, but this GPU has no bfloat16. Use fp16: true or bf16: auto.")
        return Precision(torch.bfloat16, bf16=True)
    if not gpu:
        return Precision(torch.float32)
    if not config.fp16 and torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision(torch.bfloat16, bf16=True)
    # The gradient scaler refuses float16 parameters: what is trained keeps float32 ones under autocast. Factors have
    # their own type, other than the weights around them.
    return Precision(torch.float16 if has_factors else torch.float32, fp16=True)


def check_attention(config: AttentionKeys) -> None:
    """Raise SettingError where the attention asked for cannot run here."""
    name, key = config.attention, config.attention_key
    if name is None or not config.attention_needs_gpu:
        return
    if not torch.cuda.is_available():
        raise SettingError(
            f"{key}: attention {name} needs a GPU to train, and this machine has none. Use attn_implementation: sdpa."
        )
    installed = {
        "flash_attention_2": (is_flash_attn_2_available, "the package flash-attn"),
        "flash_attention_3": (is_flash_attn_3_available, "FlashAttention 3 (flash_attn_interface)"),
        "flash_attention_4": (is_flash_attn_4_available, "FlashAttention 4 (flash_attn.cute)"),
        "kernel": (is_kernels_available, "the package kernels: pip install 'tunemill[hub-kernels]'"),
    }
    is_there, what = installed.get("kernel" if "/" in name else name, (lambda: True, ""))
    if not is_there():
        raise SettingError(f"{key}: attention {name} needs {what}. Install it, or use sdpa.")


def to_float8(model: Any, emulates: bool = False) -> None:
    """Let linear modules compute in float8, all but the first and the last; `emulates`: as a GPU would, on any machine.

    Raises SettingError where none has the size for it.
    """
    settings = Float8LinearConfig(emulate=emulates)
    convert_model_to_fp8_ao(model, settings)
    if not any(isinstance(module, Float8Linear) for module in model.modules()):
        raise SettingError(
            "fp8: true: no linear module between the first and the last has sizes that are multiples of 16. Use bf16: "
            "true."
        )


def set_compiler(config: TrainingKeys, trainer: Any) -> None:
    """Hand the compiler what the Trainer has no argument for. Raises SettingError for unknown options."""
    if not config.torch_compile:
        return
    plugin = trainer.accelerator.state.dynamo_plugin
    # Weights in parts are gathered as a layer is called, so layers are compiled, each by itself and in its place. Of a
    # whole model the names would change under FSDP, and trials of either on two processes did not end in minutes.
    plugin.use_regional_compilation = config.sharding.in_parts
    if not config.torch_compile_options:
        return
    known = torch._inductor.list_options()
    unknown = sorted(name for name in config.torch_compile_options if name not in known)
    if unknown and config.torch_compile_backend in (None, "inductor"):
        raise SettingError(
            f"torch_compile_options: {', '.join(unknown)}: no option of inductor. torch._inductor.list_options() names "
            f"them."
        )
    plugin.options = dict(config.torch_compile_options)
