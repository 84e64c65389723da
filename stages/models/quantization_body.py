"""Settings of `quantization` and `qat` as torchao takes them, and linear modules that compute as if quantized."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization import (
    Float8DynamicActivationFloat8WeightConfig,
    Float8WeightOnlyConfig,
    Int8DynamicActivationIntxWeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    PerAxis,
    PerGroup,
    PerRow,
    quantize_,
)
from torchao.quantization.qat import FakeQuantizedLinear, QATConfig

from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.heads_body import output_modules
from tunemill.stages.models.quantization import GROUPS, QatSettings, QuantizationSettings

# NVFP4 has a scale for each 16 inputs, and torchao wants as many outputs at a time.
NVFP4_BLOCK = 16


class _Rounded(torch.autograd.Function):  # type: ignore[misc]
    """A rounded tensor forward, and backward the gradient as if nothing was rounded."""

    @staticmethod
    def forward(_context: Any, tensor: Tensor, rounding: Callable[[Tensor], Tensor]) -> Tensor:
        return rounding(tensor)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Fp4Rounding(nn.Module):  # type: ignore[misc]
    """Rounds a tensor of any shape to what NVFP4 or MXFP4 can hold, on any machine; torchao's own needs a GPU."""

    def __init__(self, rounding: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.config = rounding
        self.enabled = True

    def forward(self, tensor: Tensor) -> Tensor:
        """The values after rounding, in the tensor's own type."""
        return _Rounded.apply(tensor, self.config) if self.enabled else tensor


def to_nvfp4(tensor: Tensor) -> Tensor:
    """The nearest values of NVFP4: 4-bit floats, a float8 scale for 16 of them, and one scale for all."""
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

    rows = _rows(tensor)
    scale = per_tensor_amax_to_scale(rows.abs().max())
    rounded: Tensor = NVFP4Tensor.to_nvfp4(rows, per_tensor_scale=scale).dequantize(tensor.dtype)
    return rounded.reshape(tensor.shape)


def to_mxfp4(tensor: Tensor) -> Tensor:
    """The nearest values of MXFP4: 4-bit floats, and for 32 of them a scale that is a power of two (OCP MX 1.0)."""
    from torchao.prototype.mx_formats.mx_tensor import MXTensor

    rows = _rows(tensor)
    rounded: Tensor = MXTensor.to_mx(rows, torch.float4_e2m1fn_x2, GROUPS["mxfp4"]).dequantize(tensor.dtype)
    return rounded.reshape(tensor.shape)


def _rows(tensor: Tensor) -> Tensor:
    """As matrix, in a type that torchao rounds from."""
    rows = tensor.reshape(-1, tensor.shape[-1]).contiguous()
    return rows.float() if rows.dtype == torch.float16 else rows


FP4 = {"nvfp4": to_nvfp4, "mxfp4": to_mxfp4}


def quantized_linears(model: nn.Module, settings: QuantizationSettings) -> Iterator[tuple[str, nn.Linear]]:
    """The modules that are quantized, by name: each linear one but the output head.

    Raises SettingError for one whose size does not fit the type.
    """
    heads, key = output_modules(model), "qat" if isinstance(settings, QatSettings) else "quantization"
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or any(module is head for head in heads):
            continue
        outputs, inputs = module.weight.shape
        if settings.group is not None and inputs % settings.group:
            raise SettingError(
                f"{key}.group_size: {settings.group} does not divide the {inputs} inputs of {name}. Choose a "
                f"divisor, or leave it out for one scale per row."
                if settings.weight_dtype in ("int8", "int4")
                else f"{key}.weight_dtype: {settings.weight_dtype}: {name} has {inputs} inputs, no multiple of "
                f"{settings.group}. Use int8."
            )
        if settings.weight_dtype == "nvfp4" and outputs % NVFP4_BLOCK:
            raise SettingError(
                f"{key}.weight_dtype: nvfp4: {name} has {outputs} outputs, no multiple of {NVFP4_BLOCK}. Use int8."
            )
        yield name, module


def storing_settings(settings: QuantizationSettings, *, trained: bool) -> Any:
    """What torchao takes to store a model; `trained`: with the rounding that `qat` trained with."""
    rows = PerAxis(0) if settings.group is None else PerGroup(settings.group)
    match settings.weight_dtype, settings.activation_dtype:
        case "int8", None if not trained:
            return Int8WeightOnlyConfig(granularity=PerRow() if settings.group is None else rows)
        case ("int8" | "int4") as integers, None:
            return IntxWeightOnlyConfig(weight_dtype=getattr(torch, integers), granularity=rows)
        case ("int8" | "int4") as integers, "int8":
            return Int8DynamicActivationIntxWeightConfig(
                weight_dtype=getattr(torch, integers), weight_granularity=rows
            )
        case "fp8", None:
            return Float8WeightOnlyConfig()
        case "fp8", "fp8":
            return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    from torchao.prototype.mx_formats import (
        NVFP4DynamicActivationNVFP4WeightConfig,
        NVFP4WeightOnlyConfig,
    )

    assert settings.weight_dtype == "nvfp4", settings
    return (
        NVFP4WeightOnlyConfig()
        if settings.activation_dtype is None
        else NVFP4DynamicActivationNVFP4WeightConfig()
    )


def round_in_forward(model: nn.Module, settings: QuantizationSettings) -> int:
    """Let each linear module that will be quantized compute with rounded weights (and inputs); returns how many.

    The weights themselves, and their names, stay. Raises UserError for a model without such modules, SettingError for
    sizes that do not fit.
    """
    chosen = {module for _, module in quantized_linears(model, settings)}
    if not chosen:
        raise UserError("qat: the model has no linear module but its output head: nothing to round.")
    if settings.weight_dtype in FP4:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if child in chosen:
                    setattr(module, name, _rounding_fp4(child, settings))
        return len(chosen)
    preparing = QATConfig(storing_settings(settings, trained=True), step="prepare")
    quantize_(model, preparing, filter_fn=lambda module, _: module in chosen)
    return len(chosen)


def _rounding_fp4(module: nn.Linear, settings: QuantizationSettings) -> nn.Module:
    rounding: nn.Module = FakeQuantizedLinear.from_linear(module)
    rounding.weight_fake_quantizer = Fp4Rounding(FP4[settings.weight_dtype])
    if settings.activation_dtype is not None:
        rounding.activation_fake_quantizer = Fp4Rounding(FP4[settings.activation_dtype])
    return rounding.train(module.training)


def rounding_parts(model: nn.Module) -> Iterator[Any]:
    """What rounds in a model, each with a switch `enabled`."""
    for module in model.modules():
        if isinstance(module, FakeQuantizedLinear):
            yield from (
                part
                for part in (module.weight_fake_quantizer, module.activation_fake_quantizer)
                if part is not None
            )
