"""Kernels in whole models: how modules are recognised, proven, replaced and put back."""

from support.interpreter import run_interpreted


def test_whole_models_under_the_interpreter() -> None:
    run_interpreted("apply", at_least=15, seconds=400)
