"""GeGLU, exact and tanh, at Gemma's intermediate sizes. Bytes as in SwiGLU."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.kernels.case import Case, Inputs, Setting, Way, normal, simple
from benchmarks.kernels.competitors import compiled, liger
from benchmarks.kernels.swiglu import gated_work
from benchmarks.kernels.ways import COMPILED, EAGER, LIGER, OURS
from tunemill.kernels.functions import geglu

SHAPES = [(16384, 14336), (4096, 8192)]
FORMS: tuple[geglu.Approximation, ...] = ("tanh", "none")


def cases(setting: Setting) -> list[Case]:
    """t tokens, n intermediate size."""
    shapes = [(8, 16)] if setting.tiny else SHAPES
    return [one_case(setting, *shape, form) for shape in shapes for form in FORMS]


def one_case(setting: Setting, t: int, n: int, form: geglu.Approximation) -> Case:
    """One shape in one form. Liger has the tanh form only."""
    dtype = torch.bfloat16

    def make(gradients: bool) -> Inputs:
        gate, up = (normal(t, n, setting=setting, dtype=dtype, gradients=gradients) for _ in range(2))
        return Inputs(arguments=(gate, up), wanted=(gate, up))

    ways: dict[str, Way] = {
        OURS: simple(partial(geglu.geglu, approximate=form)),
        EAGER: simple(partial(geglu.reference, approximate=form)),
        COMPILED: compiled(partial(geglu.reference, approximate=form)),
    }
    if form == "tanh":
        ways[LIGER] = liger("LigerGELUMulFunction")
    return Case(
        kernel="geglu",
        shape=f"{'tanh' if form == 'tanh' else 'exact'} t={t} n={n}",
        dtype=dtype,
        make=make,
        work=gated_work(t * n * dtype.itemsize),
        ways=ways,
    )
