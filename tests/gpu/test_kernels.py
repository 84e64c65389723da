"""Every kernel, compiled, at sizes of real models, against its reference in float64."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from support.gpu import DEVICE, DTYPES, TOLERANCES, check_against_float64, drawn, needs_gpu
from torch import Tensor

from tunemill.kernels.functions import (
    chunked_cross_entropy,
    entropy,
    geglu,
    linear_cross_entropy,
    packed_cross_attention_mask,
    rms_norm,
    rope,
    selective_log_softmax,
    swiglu,
    triton_runtime,
)

pytestmark = needs_gpu

TOKENS, HIDDEN, INTERMEDIATE, VOCABULARY = 1024, 4096, 14336, 151_936
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# A mean over many tokens has gradients too small for float16, which is trained with such a scale.
LOSS_SCALE = 1024.0
LOSS_SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all": {"softcap": 30.0, "label_smoothing": 0.1, "z_loss": 1e-4},
}


def test_kernels_are_compiled() -> None:
    assert triton_runtime.available and not triton_runtime.interpreted
    assert triton_runtime.runs_on(torch.ones(1, device=DEVICE))


@by_dtype
@pytest.mark.parametrize("columns", [INTERMEDIATE, 4097])
@pytest.mark.parametrize(
    ("kernel", "reference"),
    [
        (swiglu.swiglu, swiglu.reference),
        (geglu.geglu, geglu.reference),
        (partial(geglu.geglu, approximate="tanh"), partial(geglu.reference, approximate="tanh")),
    ],
    ids=["swiglu", "geglu", "geglu tanh"],
)
def test_gated(
    kernel: Callable[..., Tensor], reference: Callable[..., Tensor], columns: int, dtype: torch.dtype
) -> None:
    inputs = [drawn(TOKENS, columns, dtype=dtype, seed=seed) for seed in (0, 1)]
    check_against_float64(kernel, reference, inputs)


@by_dtype
def test_swiglu_of_halves_of_one_tensor(dtype: torch.dtype) -> None:
    def halves(function: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda both: function(*both.chunk(2, dim=-1))

    both = drawn(TOKENS, 2 * INTERMEDIATE, dtype=dtype)
    check_against_float64(halves(swiglu.swiglu), halves(swiglu.reference), [both])


@by_dtype
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize(
    ("rows", "columns", "offset"), [(TOKENS, HIDDEN, 0.0), (32 * TOKENS, 128, 1.0), (7, 16384, 0.0)]
)
def test_rms_norm(rows: int, columns: int, offset: float, with_residual: bool, dtype: torch.dtype) -> None:
    def call(function: Any) -> Callable[..., Any]:
        def called(x: Tensor, weight: Tensor, residual: Tensor | None = None) -> Any:
            return function(x, weight, 1e-6, residual=residual, offset=offset)

        return called

    inputs = [drawn(rows, columns, dtype=dtype), drawn(columns, dtype=dtype, seed=1)]
    inputs += [drawn(rows, columns, dtype=dtype, seed=2)] if with_residual else []
    # The residual's sum is rounded before it is normalised, and the statistics see that.
    check_against_float64(call(rms_norm.rms_norm), call(rms_norm.reference), inputs)


@by_dtype
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("heads", "size", "rotated"), [((32, 8), 128, 128), ((16, 16), 96, 48), ((8, 4), 256, 256)]
)
def test_rope(heads: tuple[int, int], size: int, rotated: int, in_place: bool, dtype: torch.dtype) -> None:
    positions = torch.arange(TOKENS, device=DEVICE, dtype=torch.float64)
    turns = 10_000.0 ** -(torch.arange(rotated // 2, device=DEVICE, dtype=torch.float64) / (rotated // 2))
    angles = torch.outer(positions, turns).repeat(1, 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def call(function: Any) -> Callable[[Tensor, Tensor], Any]:
        return lambda q, k: function(q.transpose(1, 2), k.transpose(1, 2), cos, sin, in_place=in_place)

    inputs = [drawn(2, TOKENS, count, size, dtype=dtype, seed=count) for count in heads]
    check_against_float64(call(rope.rope), call(rope.reference), inputs)


def labels_of(tokens: int) -> Tensor:
    labels = torch.randint(VOCABULARY, (tokens,), generator=torch.Generator().manual_seed(4))
    labels[2::3] = -100
    return labels.to(DEVICE)


@by_dtype
@pytest.mark.parametrize("settings", LOSS_SETTINGS.values(), ids=LOSS_SETTINGS)
@pytest.mark.parametrize("weighted", [False, True])
def test_linear_cross_entropy(weighted: bool, settings: dict[str, Any], dtype: torch.dtype) -> None:
    labels = labels_of(TOKENS)
    weights = torch.linspace(0, 2, TOKENS, device=DEVICE) if weighted else None
    settings = {**settings, "token_weights": weights}
    both = [drawn(TOKENS, 1024, dtype=dtype), drawn(VOCABULARY, 1024, dtype=dtype, seed=1, spread=0.03)]
    check_against_float64(
        lambda h, w: LOSS_SCALE * linear_cross_entropy.linear_cross_entropy(h, w, labels, **settings),
        lambda h, w: LOSS_SCALE * linear_cross_entropy.reference(h, w, labels, **settings),
        both,
    )


@by_dtype
def test_chunked_cross_entropy(dtype: torch.dtype) -> None:
    labels = labels_of(TOKENS)
    both = [drawn(TOKENS, 512, dtype=dtype), drawn(VOCABULARY, 512, dtype=dtype, seed=1, spread=0.03)]
    check_against_float64(
        lambda h, w: LOSS_SCALE * chunked_cross_entropy.chunked_cross_entropy(h, w, labels),
        lambda h, w: LOSS_SCALE * linear_cross_entropy.reference(h, w, labels),
        both,
    )


@by_dtype
def test_entropy(dtype: torch.dtype) -> None:
    logits = drawn(2, 257, VOCABULARY, dtype=dtype)
    check_against_float64(
        lambda x: entropy.entropy(x[:, :-1]), lambda x: entropy.reference(x[:, :-1]), [logits]
    )


@by_dtype
@pytest.mark.parametrize("several", [False, True])
def test_selective_log_softmax(several: bool, dtype: torch.dtype) -> None:
    logits = drawn(2, 257, VOCABULARY, dtype=dtype)
    shape = (2, 256, 20) if several else (2, 256)
    index = torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(4)).to(DEVICE)
    check_against_float64(
        lambda x: selective_log_softmax.selective_log_softmax(x[:, :-1], index),
        lambda x: selective_log_softmax.reference(x[:, :-1], index),
        [logits],
    )


def test_packed_cross_attention_mask() -> None:
    lengths = [700, 1, 323, 1000, 24]
    positions = torch.cat([torch.arange(length) for length in lengths]).view(2, TOKENS).to(DEVICE)
    for causal in (True, False):
        actual = packed_cross_attention_mask.packed_cross_attention_mask(positions, causal=causal)
        assert torch.equal(actual, packed_cross_attention_mask.reference(positions, causal=causal))
    borders = packed_cross_attention_mask.cumulative_sequence_lengths(positions, max_sequences=6)
    assert borders.tolist() == [0, 700, 701, 1024, 2024, 2048, 2048]


def test_the_peak_memory_of_the_loss_is_a_tenth_of_the_naive_one() -> None:
    labels = labels_of(8192)
    peaks = []
    for function in (linear_cross_entropy.linear_cross_entropy, linear_cross_entropy.reference):
        hidden = drawn(8192, 1024, dtype=torch.bfloat16).requires_grad_()
        # Frozen, as with an adapter: a gradient of the weight would be as large either way.
        weight = drawn(VOCABULARY, 1024, dtype=torch.bfloat16, seed=1, spread=0.03)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function(hidden, weight, labels).backward()
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    print(f"peak {peaks[0] / 2**20:.0f} MiB, naive {peaks[1] / 2**20:.0f} MiB")
    assert 10 * peaks[0] <= peaks[1], peaks


def test_what_the_tolerances_are_worth() -> None:
    """A result with an error of a hundredth more than its rounding is found out in every type."""
    for dtype, tolerance in TOLERANCES.items():
        gate, up = (drawn(64, 256, dtype=dtype, seed=seed) for seed in (0, 1))
        with pytest.raises(AssertionError, match="further than"):
            check_against_float64(
                lambda a, b, off=3 * tolerance: swiglu.swiglu(a, b) * (1 + off), swiglu.reference, [gate, up]
            )
