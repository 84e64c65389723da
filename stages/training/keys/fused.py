"""Axolotl's keys of fused functions of its own: each has a kernel here, which `kernels: auto` takes where it fits."""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from tunemill.stages.declaration import ConflictError, Idle, Runtime
from tunemill.stages.training.keys.kernels import KernelKeys


class FusedKeys(KernelKeys):
    """Functions that other libraries fuse: the same numbers up to rounding."""

    flash_attn_cross_entropy: Runtime[bool] = Field(
        False, description="cross entropy of flash-attn: asks for a kernel of the loss, as kernels: auto does"
    )
    flash_attn_fuse_mlp: Runtime[bool] = Field(
        False, description="fused activation of an MLP: asks for its kernel, as kernels: auto does"
    )
    flash_attn_rms_norm: Runtime[bool] = Field(
        False, description="RMSNorm of flash-attn: asks for its kernel, as kernels: auto does"
    )
    fused_attn_kernel: Runtime[bool] = Field(
        False, description="fused norm and rotation of q and k: asks for their kernels, as kernels: auto does"
    )

    @property
    def fused_functions(self) -> dict[str, str]:
        """Those of the keys that are set, and the kernels that compute what each asks for."""
        asked = {
            "flash_attn_cross_entropy": ("linear_cross_entropy", self.flash_attn_cross_entropy),
            "flash_attn_fuse_mlp": ("swiglu or geglu", self.flash_attn_fuse_mlp),
            "flash_attn_rms_norm": ("rms_norm", self.flash_attn_rms_norm),
            "fused_attn_kernel": ("rms_norm and rope", self.fused_attn_kernel),
        }
        return {key: kernels for key, (kernels, is_set) in asked.items() if is_set}

    @model_validator(mode="after")
    def _check_fused(self) -> Self:
        for key, kernels in self.fused_functions.items():
            if self.kernels != "auto":
                raise ConflictError(
                    f"{key}: true asks for what the kernels {kernels} compute, and kernels says which there are. "
                    f"Remove one of the two keys",
                    key,
                    "kernels",
                )
        return self

    def idle(self) -> Iterator[Idle]:
        """What is on already."""
        yield from super().idle()
        for key, kernels in self.fused_functions.items():
            yield Idle(key, f"on a GPU the kernels {kernels} of kernels: auto compute it where they fit")
