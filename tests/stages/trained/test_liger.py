"""Liger's functions behind our signatures; the tests proper run interpreted, in interpreted_liger.py."""

from importlib.util import find_spec

import pytest
from support.interpreter import run_interpreted


@pytest.mark.skipif(find_spec("liger_kernel") is None, reason="needs liger-kernel")
def test_under_the_interpreter():
    run_interpreted("liger", at_least=65)
