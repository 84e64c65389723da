"""Every kernel compiles for real GPUs, spills nothing and moves 16 bytes at a time; no GPU is needed."""

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("Triton exists for Linux only", allow_module_level=True)

import torch
import triton
from support.compile_only import called_by, compile_only, kernels_of
from support.kernel_launches import DTYPES, LAUNCHES

from tunemill.kernels import functions
from tunemill.kernels.functions.entropy import _Entropy
from tunemill.kernels.functions.geglu import GeGLU
from tunemill.kernels.functions.rms_norm import WARPS_PER_PROCESSOR, RMSNorm
from tunemill.kernels.functions.rope import RoPE
from tunemill.kernels.functions.selective_log_softmax import _SelectiveLogSoftmax
from tunemill.kernels.functions.swiglu import SwiGLU

# Accesses narrower than 16 bytes that a kernel may hold: what it reads or writes once a row (nf4: its tables).
NARROW = {
    "swiglu": 0,
    "geglu": 0,
    "rms_norm": 4,
    "rope": 8,
    "nf4": 71,
    "entropy": 4,
    "selective_log_softmax": 5,
    "linear_cross_entropy": 4,
}


@pytest.fixture(scope="module", autouse=True)
def empty_cache(tmp_path_factory):
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path_factory.mktemp("triton"))
        yield


@pytest.fixture(scope="module")
def hopper():
    """The launches for an H200 of each case and dtype, as they are asked for."""
    made = {}

    def launches(name, dtype):
        if (name, dtype) not in made:
            with compile_only("sm_90") as made[name, dtype]:
                LAUNCHES[name](dtype)
        return made[name, dtype]

    return launches


@pytest.mark.parametrize(
    "dtype",
    [one if one == torch.bfloat16 else pytest.param(one, marks=pytest.mark.exhaustive) for one in DTYPES],
    ids=str,
)
@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHES)
def test_nothing_is_spilled_and_accesses_are_wide(name, dtype, hopper):
    for launch in hopper(name, dtype):
        used, accesses = launch.resources(), launch.accesses()
        what = f"{launch.name} {launch.signature} {used} {accesses}"
        # The widest row of all, with the gradient of its weight, holds a few constants on the stack; so do some
        # versions of Triton with one or two for a capped loss.
        widest = launch.name == "rms_norm.backward_kernel" and launch.metadata.num_warps == 16
        is_loss = launch.name.startswith("linear_cross_entropy")
        assert used["spilled"] <= (48 if widest else 8 if is_loss else 0), what
        assert used["shared"] <= 48 * 1024, what
        assert sum(size == 16 for _, size in accesses) >= 2, what
        assert sum(size < 16 for _, size in accesses) <= NARROW[launch.name.partition(".")[0]], what
        assert launch.grid[0] < 1 << 31, what
        assert max(launch.grid[1:]) < 1 << 16, what


@pytest.mark.slow
def test_no_kernel_is_left_out(hopper):
    launched = {launch.kernel for name in LAUNCHES for launch in hopper(name, torch.bfloat16)}
    covered = launched.union(*(called_by(kernel) for kernel in launched))
    found = kernels_of(functions)
    assert len(found) >= 15
    assert [name for name, kernel in found.items() if kernel not in covered] == []


def test_offsets_beyond_32_bits_stay_wide(hopper):
    launches = hopper("swiglu over 2^31 elements", torch.bfloat16)
    # Contiguous, forward and backward, then rows apart: there only the number of the row within its blocks
    # may be a product of 32 bits, never a row times its stride.
    assert [launch.signature["columns"] for launch in launches] == ["i64", "i64", "i32", "i32"]
    for launch in launches[2:]:
        assert launch.files["ptx"].read_text().count("mul.lo.s32") == 1


def test_the_programs_of_a_weight_gradient_are_resident_together(hopper):
    launches = [x for x in hopper("rms_norm", torch.bfloat16) if "backward" in x.name and x.grid[0] == 2]
    assert len(launches) >= 6
    for launch in launches:
        warps = launch.metadata.num_warps
        registers = -(-launch.resources()["registers"] // 8) * 8 * 32 * warps
        assert registers * max(1, WARPS_PER_PROCESSOR // warps) <= 65536, (warps, registers)


@pytest.mark.slow
@pytest.mark.parametrize("target", [pytest.param("sm_80", marks=pytest.mark.exhaustive), "gfx942"])
@pytest.mark.parametrize("name", LAUNCHES)
def test_other_gpus(name, target):
    with compile_only(target) as launches:
        LAUNCHES[name](torch.float16)
    assert launches
    for launch in launches:
        assert launch.metadata.shared <= 64 * 1024
        assert launch.files["cubin" if target == "sm_80" else "hsaco"].stat().st_size > 0


def activation(*shape):
    return torch.zeros(shape, dtype=torch.bfloat16, requires_grad=True)


TRACED = {
    "swiglu": (SwiGLU, lambda: (activation(16, 256), activation(16, 256))),
    "geglu": (GeGLU, lambda: (activation(16, 256), activation(16, 256), True)),
    "rms_norm": (RMSNorm, lambda: (activation(16, 256), activation(256), None, 1e-6, 0.0)),
    "rms_norm of a sum": (
        RMSNorm,
        lambda: (activation(16, 256), activation(256), activation(16, 256), 1e-6, 0.0),
    ),
    "rope": (
        RoPE,
        lambda: (
            activation(1, 8, 16, 64),
            activation(1, 2, 16, 64),
            torch.ones(1, 16, 64),
            torch.zeros(1, 16, 64),
            True,
        ),
    ),
    "entropy": (_Entropy, lambda: (activation(4, 9, 1024),)),
    "selective_log_softmax": (
        _SelectiveLogSoftmax,
        lambda: (activation(4, 9, 1024), torch.zeros(4, 9, dtype=torch.int64)),
    ),
}


@pytest.mark.parametrize("name", TRACED)
def test_a_compiled_model_holds_the_kernel_without_a_graph_break(name, monkeypatch):
    # Without this torch looks for a GPU, finds none and takes a kernel for any other Python function.
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)
    function, make = TRACED[name]

    def model(first, *rest):
        outputs = function.apply(first * 1, *rest)
        return outputs.sum() if isinstance(outputs, torch.Tensor) else sum(y.sum() for y in outputs)

    torch._dynamo.reset()
    with compile_only("sm_90") as launches:
        torch.compile(model, backend="aot_eager", fullgraph=True)(*make()).backward()
    assert len(launches) == 2
