"""Kernels in the model that is trained: what this machine can run, which functions go in, and what is said of it."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from tunemill.kernels.functions import triton_runtime
from tunemill.kernels.functions.chunked_cross_entropy import chunked_cross_entropy
from tunemill.kernels.in_models.applied import Applied
from tunemill.kernels.in_models.apply import KERNELS, apply_kernels
from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report
from tunemill.stages.training.kernels.surroundings_body import Transformers
from tunemill.stages.training.keys.kernels import KernelChoice, Source

# Where the functions of other libraries stand behind our signatures.
MODULES: dict[Source, str] = {
    "liger": "tunemill.stages.training.kernels.liger_body",
    "cut_cross_entropy": "tunemill.stages.training.kernels.cut_cross_entropy_body",
}
PACKAGES: dict[Source, tuple[str, str]] = {
    "liger": ("liger_kernel", "liger-kernel"),
    "cut_cross_entropy": ("cut_cross_entropy", "cut-cross-entropy"),
}


def check_kernels_here(choice: KernelChoice) -> None:
    """Raise SettingError where a kernel that is insisted on cannot run on this machine."""
    keys = choice.needing_gpu()
    if keys and not _runs_here():
        lacking = "a GPU" if triton_runtime.available else "Triton, which exists for Linux"
        raise SettingError(
            f"{', '.join(keys)}: needs {lacking}, and this machine has none. Remove it, or use kernels: auto, which "
            f"trains without kernels here."
        )
    for source, (module, package) in PACKAGES.items():
        if source in choice.sources.values() and find_spec(module) is None:
            asking = [one.key for one in choice.asked if choice.sources[one.kernels[0]] == source]
            raise SettingError(
                f"{', '.join(asking)}: needs the package {package}, which is not installed. "
                f"pip install {package}"
            )


def add_kernels(
    choice: KernelChoice, model: nn.Module, autocast_dtype: torch.dtype | None, report: Report
) -> Applied:
    """Put the chosen kernels into `model`, which is on its device, and report which.

    Raises SettingError where one that it insists on fits no module.
    """
    runs = _runs_here()
    names = [name for name, source in choice.sources.items() if runs or source == "chunked"]
    if not names:
        report.summary(kernels="none")
        return Applied()
    functions = {name: _function(choice, name) for name in names}
    applied = apply_kernels(model, functions, Transformers(), autocast_dtype=autocast_dtype)
    for one in choice.asked:
        if any(name in applied.places for name in one.kernels):
            continue
        if one.insists:
            raise SettingError(
                f"{one.key}: {_why_not(one.kernels, applied)} Remove it, or use kernels: auto."
            )
        report.log(f"{one.key}: {_why_not(one.kernels, applied)} The model computes it itself")
    _report(applied, choice, report)
    return applied


def _runs_here() -> bool:
    """Whether Triton's kernels run here: on a GPU, or in Triton's interpreter."""
    return triton_runtime.interpreted or (triton_runtime.available and torch.cuda.is_available())


def _function(choice: KernelChoice, name: str) -> Callable[..., Any]:
    source = choice.sources[name]
    if source == "tunemill":
        return KERNELS[name]
    if source == "chunked":
        return partial(chunked_cross_entropy, num_chunks=choice.chunks)
    functions = import_module(MODULES[source])
    # A compiler would try to trace into another library's kernels.
    function: Callable[..., Any] = torch.compiler.disable(vars(functions)[name])
    return function


def _why_not(kernels: Sequence[str], applied: Applied) -> str:
    reasons = {reason for name in kernels for reason in applied.refusals.get(name, {}).values()}
    if not reasons:
        return "no module of this model computes that."
    return f"it fits no module of this model: {'; '.join(sorted(reasons))}."


def _report(applied: Applied, choice: KernelChoice, report: Report) -> None:
    used = {name: len(places) for name, places in applied.places.items()}
    sources = {name: choice.sources.get(name, "tunemill") for name in used}
    rows = [(name, sources[name], count) for name, count in sorted(used.items())]
    if rows:
        report.table("Kernels", ["kernel", "from", "modules"], rows)
    report.summary(kernels=", ".join(f"{name} ({count})" for name, _, count in rows) or "none")
    for name, refused in sorted(applied.refusals.items()):
        # The size of an error stands behind a colon, and is another one in each layer.
        for kind in sorted({reason.partition(":")[0] for reason in refused.values()}):
            places = [place for place, reason in refused.items() if reason.partition(":")[0] == kind]
            report.log(f"kernel {name}: not in {places[0]}, {len(places)} in all: {refused[places[0]]}")
