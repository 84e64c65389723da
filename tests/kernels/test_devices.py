"""Tensors on several devices are refused, by name, before a kernel reads the wrong memory."""

from types import SimpleNamespace

import pytest
import torch

from tunemill.kernels.functions.geglu import geglu
from tunemill.kernels.functions.linear_cross_entropy import linear_cross_entropy
from tunemill.kernels.functions.nf4 import dequantize_nf4
from tunemill.kernels.functions.rms_norm import rms_norm
from tunemill.kernels.functions.rope import rope
from tunemill.kernels.functions.selective_log_softmax import selective_log_softmax
from tunemill.kernels.functions.swiglu import swiglu

HERE, THERE = torch.ones(2, 4), torch.ones(2, 4, device="meta")
HEADS, ANGLES = torch.ones(1, 2, 3, 4), torch.ones(3, 4, device="meta")
LABELS = torch.zeros(2, dtype=torch.int64)
STATE = SimpleNamespace(
    quant_type="nf4",
    dtype=torch.float32,
    blocksize=64,
    shape=(8, 8),
    absmax=torch.ones(1, device="meta"),
    offset=0.0,
    state2=None,
)
CALLS = {
    "gate on cpu, up on meta": lambda: swiglu(HERE, THERE),
    "gate on meta, up on cpu": lambda: geglu(THERE, HERE),
    "x on cpu, weight on cpu, residual on meta": lambda: rms_norm(HERE, HERE[0], 1e-6, residual=THERE),
    "x on cpu, weight on meta": lambda: rms_norm(HERE, THERE[0], 1e-6),
    "q on cpu, k on cpu, cos on meta, sin on meta": lambda: rope(HEADS, HEADS, ANGLES, ANGLES),
    "packed on cpu, absmax on meta": lambda: dequantize_nf4(torch.zeros(32, dtype=torch.uint8), STATE),
    "logits on cpu, index on meta": lambda: selective_log_softmax(HERE, LABELS.to("meta")),
    "hidden on cpu, weight on meta, labels on cpu": lambda: linear_cross_entropy(HERE, THERE, LABELS),
}


@pytest.mark.parametrize("places", CALLS)
def test_several_devices(places):
    first = places.split(",")[0].split(" on ")[1]
    with pytest.raises(ValueError, match=rf"^{places}: .* move them with \.to\('{first}'\)"):
        CALLS[places]()
