"""Settings of `quantization` and `qat` as torchao takes them, and linear modules that compute as if quantized."""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization import (
    Float8DynamicActivationFloat8WeightConfig,
    Float8WeightOnlyConfig,
    FqnToConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8DynamicActivationIntxWeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    PerAxis,
    PerGroup,
    PerRow,
    quantize_,
)
from torchao.quantization.qat import FakeQuantizedEmbedding, FakeQuantizedLinear, QATConfig

from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.heads_body import output_modules
from tunemill.stages.models.quantization import (
    GROUPS,
    QuantizationSettings,
    check_left_out,
    fault_of_embedding,
    fault_of_size,
)


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
    heads = output_modules(model)
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or any(module is head for head in heads):
            continue
        if reason := fault_of_size(settings, name, *module.weight.shape):
            raise SettingError(f"{settings.key}.{reason}.")
        yield name, module


@dataclass(frozen=True)
class Parts:
    """What is quantized of a model, by name: linear modules, parameters of experts, and the table of embeddings.

    `left_out`: share of the weights of linear modules and experts that stays as it is, for want of a format.
    """

    linears: tuple[str, ...]
    experts: tuple[str, ...]
    embedding: str | None
    left_out: float


def parts_of(model: Any, settings: QuantizationSettings, *, trained: bool) -> Parts:
    """What these settings quantize of a model, which may be without weights.

    Raises UserError for a model in which that is nothing, or less than half of its weights; SettingError for sizes that
    do not fit the type.
    """
    linears = dict(quantized_linears(model, settings))
    experts = dict(_expert_parameters(model))
    fitting = [
        name
        for name, (turned, weight) in experts.items()
        if expert_settings(settings, turned=turned, trained=trained) is not None
        and (settings.group is None or weight.shape[-1] % settings.group == 0)
    ]
    if not linears and not experts:
        raise UserError(
            f"{settings.key}: the model has no linear module but its output head: nothing to quantize."
        )
    left = sum(weight.numel() for name, (_, weight) in experts.items() if name not in fitting)
    total = sum(module.weight.numel() for module in linears.values())
    share = left / (total + sum(weight.numel() for _, weight in experts.values()))
    check_left_out(share, settings)
    embedding = _name_of_embedding(model, settings) if settings.quantize_embedding else None
    return Parts(tuple(linears), tuple(fitting), embedding, share)


def _name_of_embedding(model: Any, settings: QuantizationSettings) -> str:
    table = model.get_input_embeddings()
    name: str = next(name for name, module in model.named_modules() if module is table)
    if not isinstance(table, nn.Embedding) or next(table.buffers(), None) is not None:
        raise SettingError(
            f"{settings.key}.quantize_embedding: {name} scales what it looks up ({type(table).__name__}), and "
            f"transformers loads no such factor beside a quantized weight. Leave it out."
        )
    if reason := fault_of_embedding(settings, table.embedding_dim):
        raise SettingError(f"{settings.key}.{reason}.")
    return name


def _expert_parameters(model: nn.Module) -> Iterator[tuple[str, tuple[bool | None, nn.Parameter]]]:
    """Name of each parameter with the weights of all experts of a layer, whether it is [E, inputs, outputs] (None:
    unknown, and transformers computes with it in a way of its own), and the parameter."""
    for place, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3 and parameter.is_floating_point() and "experts" in place.split("."):
                yield f"{place}.{name}", (getattr(module, "is_transposed", None), parameter)


def expert_settings(settings: QuantizationSettings, *, turned: bool | None, trained: bool) -> Any | None:
    """What torchao takes to store the experts of a layer; None where it has no format that transformers computes with.

    Checked with torchao 0.18: its tensors for int4 and nvfp4 have no experts, those for int8 none that are `turned`.
    """
    if trained or turned is None:
        return None
    match settings.weight_dtype, settings.activation_dtype:
        case "int8", None if not turned:
            return storing_settings(settings, trained=False)
        case "int8", "int8" if not turned and settings.group is None:
            return Int8DynamicActivationInt8WeightConfig()
        case "fp8", None:
            return storing_settings(settings, trained=False)
    return None


def embedding_settings(settings: QuantizationSettings, *, trained: bool) -> Any:
    """What torchao takes to store embeddings, which are looked up and not multiplied: weights alone."""
    return storing_settings(settings.model_copy(update={"activation_dtype": None}), trained=trained)


def storing_by_name(model: Any, parts: Parts, settings: QuantizationSettings, *, trained: bool) -> Any:
    """What torchao takes to store these parts; `model` may be without weights."""
    linear = storing_settings(settings, trained=trained)
    if not parts.experts and parts.embedding is None:
        return linear
    by_name: OrderedDict[str, Any] = OrderedDict()
    if parts.embedding is not None:
        by_name[f"{parts.embedding}.weight"] = embedding_settings(settings, trained=trained)
    turned = {name: turned for name, (turned, _) in _expert_parameters(model)}
    every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for way in (False, True):
        names = [name for name in parts.experts if turned[name] is way]
        of_experts = expert_settings(settings, turned=way, trained=trained)
        by_name.update((pattern, of_experts) for pattern in patterns(names, every))
    linears = [f"{name}.weight" for name in parts.linears]
    by_name.update((pattern, linear) for pattern in patterns(linears, every))
    return FqnToConfig(by_name)


def patterns(names: Iterable[str], every: Iterable[str]) -> list[str]:
    """Names of parameters among all of a model's, as torchao takes them: by their ends where no other has such a one,
    else each by itself."""
    wanted = set(names)
    if not wanted:
        return []
    parent = {".".join(name.split(".")[-2:]) for name in wanted}
    pattern = rf".*\.({'|'.join(sorted(re.escape(end) for end in parent))})"
    if {name for name in every if re.fullmatch(pattern, name)} == wanted:
        return [f"re:{pattern}"]
    return sorted(wanted)


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
        case "mxfp4", "mxfp4":
            return _storing_mxfp4()
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


def _storing_mxfp4() -> Any:
    from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.quantization.quantize_.common import KernelPreference

    return MXDynamicActivationMXWeightConfig(
        activation_dtype=torch.float4_e2m1fn_x2,
        weight_dtype=torch.float4_e2m1fn_x2,
        kernel_preference=KernelPreference.EMULATED,
        scaling_mode=ScaleCalculationMode.FLOOR,
    )


def round_in_forward(model: nn.Module, settings: QuantizationSettings) -> Parts:
    """Let each module that will be quantized compute with rounded weights (and inputs); returns which these are.

    The weights themselves, and their names, stay. An output head that is tied to rounded embeddings is rounded as
    they are. Raises UserError for a model without such modules, SettingError for sizes that do not fit.
    """
    parts = parts_of(model, settings, trained=True)
    chosen = {model.get_submodule(name) for name in parts.linears}
    if parts.embedding is not None:
        table = model.get_submodule(parts.embedding)
        tied = [head for head in output_modules(model) if head.weight is table.weight]
        preparing = QATConfig(embedding_settings(settings, trained=True), step="prepare")
        quantize_(model, preparing, filter_fn=lambda module, _: module is table or module in tied)
    if settings.weight_dtype in FP4:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if child in chosen:
                    setattr(module, name, _rounding_fp4(child, settings))
        return parts
    preparing = QATConfig(storing_settings(settings, trained=True), step="prepare")
    quantize_(model, preparing, filter_fn=lambda module, _: module in chosen)
    return parts


def _rounding_fp4(module: nn.Linear, settings: QuantizationSettings) -> nn.Module:
    rounding: nn.Module = FakeQuantizedLinear.from_linear(module)
    rounding.weight_fake_quantizer = Fp4Rounding(FP4[settings.weight_dtype])
    if settings.activation_dtype is not None:
        rounding.activation_fake_quantizer = Fp4Rounding(FP4[settings.activation_dtype])
    return rounding.train(module.training)


def rounding_parts(model: nn.Module) -> Iterator[Any]:
    """What rounds in a model, each with a switch `enabled`."""
    for module in model.modules():
        if isinstance(module, FakeQuantizedLinear | FakeQuantizedEmbedding):
            found = (getattr(module, f"{of}_fake_quantizer", None) for of in ("weight", "activation"))
            yield from (part for part in found if part is not None)
