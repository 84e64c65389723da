"""The block-diagonal mask of one packed row, against a Python loop over its documents.

Bytes: s * s of the mask are written, s position ids read. No gradient. The compiled way compiles our function, for
the reference cannot be compiled.
"""

from __future__ import annotations

import torch

from benchmarks.kernels.case import Case, Inputs, Setting, Work, simple
from benchmarks.kernels.competitors import compiled
from benchmarks.kernels.ways import COMPILED, EAGER, OURS
from tunemill.kernels.functions import packed_cross_attention_mask as kernel

DOCUMENTS = 16


def cases(setting: Setting) -> list[Case]:
    """s positions in 16 documents of one length."""
    return [one_case(setting, positions) for positions in ([32] if setting.tiny else [16384, 4096])]


def one_case(setting: Setting, positions: int) -> Case:
    """One row."""

    def make(_: bool) -> Inputs:
        one = torch.arange(positions // DOCUMENTS, device=setting.device)
        return Inputs(arguments=(one.repeat(DOCUMENTS).unsqueeze(0),))

    return Case(
        kernel="packed_cross_attention_mask",
        shape=f"s={positions} {DOCUMENTS} documents",
        dtype=torch.bool,
        make=make,
        work=Work(forward_bytes=positions * positions + 8 * positions, both_bytes=None),
        ways={
            OURS: simple(kernel.packed_cross_attention_mask),
            EAGER: simple(kernel.reference),
            COMPILED: compiled(kernel.packed_cross_attention_mask),
        },
        exact=True,
    )
