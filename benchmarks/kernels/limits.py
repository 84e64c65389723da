"""What this GPU can do, measured in the same run: bytes/s of a large copy, FLOP/s of a large matrix product."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from benchmarks.kernels.case import Setting
from benchmarks.kernels.timing import free_memory, milliseconds

COPIED_BYTES = 4 * 2**30
MATRIX_SIZE = 8192
BUDGET_MS = 150.0
PACKAGES = ("torch", "triton", "transformers", "peft", "liger_kernel", "bitsandbytes", "unsloth", "axolotl")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Copy bandwidth (read and written bytes both count), bf16 matmul rate, and where they were measured."""

    bytes_per_second: float
    flops_per_second: float
    device: str
    versions: dict[str, str]


def measure_limits(setting: Setting) -> Limits:
    """Copy of 4 GiB; product of two 8192 x 8192 bfloat16 matrices."""
    count, size = (2**16, 64) if setting.tiny else (COPIED_BYTES, MATRIX_SIZE)
    limits = Limits(
        bytes_per_second=copy_bandwidth(setting.device, count),
        flops_per_second=matmul_rate(setting.device, size),
        device=torch.cuda.get_device_name() if setting.device == "cuda" else platform.processor() or "CPU",
        versions={name: installed(name) for name in PACKAGES} | cuda_version(),
    )
    free_memory()
    return limits


def copy_bandwidth(device: str, count: int) -> float:
    """Bytes per second, read and written ones, of a copy of `count` bytes."""
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * count / (milliseconds(lambda: target.copy_(source), budget_ms=BUDGET_MS) / 1000)


def matmul_rate(device: str, size: int) -> float:
    """FLOP per second of the product of two bfloat16 matrices."""
    left, right = torch.randn((2, size, size), device=device, dtype=torch.bfloat16)
    product = torch.empty_like(left)
    call = partial(torch.mm, left, right, out=product)
    return 2 * size**3 / (milliseconds(call, budget_ms=BUDGET_MS) / 1000)


def installed(package: str) -> str:
    """The version, or why there is none."""
    if find_spec(package) is None:
        return "not installed"
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def cuda_version() -> dict[str, str]:
    """CUDA as torch was built for, where it was."""
    return {"CUDA": torch.version.cuda} if torch.version.cuda else {}
