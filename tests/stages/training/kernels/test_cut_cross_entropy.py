"""Cut Cross Entropy behind our signature; what computes runs interpreted, in interpreted_cut_cross_entropy.py."""

import sys

import pytest
import torch
from support.interpreter import run_interpreted

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="its kernels need Triton, which exists for Linux only"
)


@pytest.mark.slow
def test_under_the_interpreter():
    run_interpreted("cut_cross_entropy", at_least=13)


@pytest.mark.parametrize(
    ("dtype", "settings", "message"),
    [
        (torch.bfloat16, {"label_smoothing": 0.1}, "label_smoothing: 0.1; Cut Cross Entropy has none"),
        (torch.bfloat16, {"z_loss": 1e-4}, "z_loss: 0.0001; Cut Cross Entropy has none"),
        (torch.bfloat16, {"softcap": 3.0}, "softcap: 3.0 with a vocabulary of 9; .* a multiple of 128"),
        (torch.float32, {}, "hidden is torch.float32; .* Set bf16: true"),
    ],
)
def test_what_it_cannot_do_is_refused(dtype, settings, message):
    from tunemill.stages.training.kernels.cut_cross_entropy_body import linear_cross_entropy

    hidden, weight = torch.ones(4, 8, dtype=dtype), torch.ones(9, 8, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(hidden, weight, torch.zeros(4, dtype=torch.int64), **settings)
