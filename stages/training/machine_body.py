"""Which precision and attention this machine can honour; asked before any weight is read."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from tunemill.stages.errors import SettingError
from tunemill.stages.training.keys.machine import GPU_ATTENTION
from tunemill.stages.training.keys.training import TrainingKeys


@dataclass(frozen=True)
class Precision:
    """`weights`: type in which the model is loaded; the flags are those of the Trainer."""

    weights: Any
    bf16: bool = False
    fp16: bool = False

    @property
    def autocast(self) -> Any:
        """Type of the autocast that the Trainer runs the model under; None is none."""
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else None


def choose_precision(config: TrainingKeys) -> Precision:
    """The precision asked for; `bf16: auto` is bfloat16 or else float16 on a GPU, float32 without one.

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
    if config.float32 or (config.bf16 is False and not config.fp16):
        return Precision(torch.float32)
    if config.bf16 == "full":
        return Precision(torch.bfloat16)
    if config.bf16 is True:
        if gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise SettingError("bf16: true, but this GPU has no bfloat16. Use fp16: true or bf16: auto.")
        return Precision(torch.bfloat16, bf16=True)
    if not gpu:
        return Precision(torch.float32)
    if not config.fp16 and torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision(torch.bfloat16, bf16=True)
    # The gradient scaler refuses float16 parameters, so a full fine-tune keeps float32 ones under autocast.
    return Precision(torch.float16 if config.adapter else torch.float32, fp16=True)


def check_attention(config: TrainingKeys) -> None:
    """Raise SettingError where the attention asked for cannot run here."""
    name = config.attention
    if name in GPU_ATTENTION and not torch.cuda.is_available():
        raise SettingError(
            f"attention {name} needs a GPU to train, and this machine has none. Use attn_implementation: sdpa."
        )
    installed = {
        "flash_attention_2": is_flash_attn_2_available,
        "flash_attention_3": is_flash_attn_3_available,
    }
    if name in installed and not installed[name]():
        raise SettingError(f"attention {name} needs the flash-attn package. Install it, or use sdpa.")
