"""Runs a file of Triton kernel tests in a child process under Triton's interpreter.

``TRITON_INTERPRET`` is read when a kernel is decorated, so it cannot be switched on inside this process. A
kernel's tests therefore come in two files:

* ``interpreted_<name>.py``: the tests proper. pytest does not collect it (its name does not
  start with ``test_``).
* ``test_<name>.py``: what needs no Triton, and

      from support.interpreter import run_interpreted

      def test_under_the_interpreter() -> None:
          run_interpreted("swiglu", at_least=20)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_interpreted(name: str, *, at_least: int, seconds: float = 180.0, slow: bool = False) -> None:
    """Run ``interpreted_<name>.py`` interpreted; fail unless all pass, `at_least` of them.

    The number guards against a file whose tests are not collected or are skipped. Those that are marked slow run with
    `slow` only, and then alone.
    """
    (file,) = (ROOT / "tests").rglob(f"interpreted_{name}.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for variable in [v for v in environment if v.startswith("PYTEST_")]:
        del environment[variable]
    command = [sys.executable, "-m", "pytest", str(file), "-q", "-x", "--noconftest", "-n", "0"]
    command += ["-p", "no:cacheprovider", "-m", "slow" if slow else "not slow"]
    child = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert child.returncode == 0, f"{' '.join(command)}\n{child.stdout[-6000:]}\n{child.stderr[-2000:]}"
    found = re.search(r"(\d+) passed", child.stdout)
    passed = int(found.group(1)) if found else 0
    assert passed >= at_least, f"{file.name}: {passed} tests passed, expected at least {at_least}"
