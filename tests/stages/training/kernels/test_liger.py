"""Liger's functions behind our signatures; the tests proper run interpreted, in interpreted_liger.py."""

import sys

import pytest
from support.interpreter import run_interpreted


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="its kernels need Triton, which exists for Linux only")
def test_under_the_interpreter():
    run_interpreted("liger", at_least=65)
