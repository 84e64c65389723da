"""What of the environment reaches a stage, and that nothing else changes its result."""

import os
import subprocess
import sys

import pytest
from support.project import make_project

from tunemill.resources.environment import FIXED, child_environment, recorded_environment

FOREIGN = {
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ATEN_CPU_CAPABILITY": "default",
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "FSDP_VERSION": "2",
    "LIGER_KERNEL_IMPL": "cutile",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "NVIDIA_TF32_OVERRIDE": "1",
    "PYTHONHASHSEED": "7",
    "PYTHONOPTIMIZE": "2",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "TRANSFORMERS_VERBOSITY": "debug",
    "TRITON_INTERPRET": "1",
    "WORLD_SIZE": "2",
    "A_VARIABLE_OF_THE_NEXT_LIBRARY": "1",
}
WANTED = {
    "AWS_SECRET_ACCESS_KEY": "s",
    "CUDA_VISIBLE_DEVICES": "1",
    "HF_TOKEN": "t",
    "HOME": "/home/me",
    "LC_ALL": "C",
    "OMP_NUM_THREADS": "1",
    "PATH": "/bin",
    "https_proxy": "http://proxy",
}


def test_only_what_is_listed_reaches_a_child():
    assert child_environment({**FOREIGN, **WANTED}) == WANTED | FIXED


def test_what_can_change_the_last_bits_is_recorded():
    assert recorded_environment({**FOREIGN, **WANTED}) == {
        "CUDA_VISIBLE_DEVICES": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.slow
def test_a_foreign_variable_gives_the_same_weights(tmp_path):
    digests = []
    for name, variables in (("plain", {}), ("foreign", FOREIGN | {"WORLD_SIZE": "1"})):
        project = make_project(tmp_path / name, quantization=None, test_datasets=None)
        command = [sys.executable, "-m", "tunemill.pipelines.cli", "run", str(project.yaml)]
        ours = {key: value for key, value in variables.items() if key != "PYTHONOPTIMIZE"}
        ran = subprocess.run(
            [*command, "--state", str(project.state)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **ours},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        cached = project.plan()["merged"].cached
        assert cached.manifest["environment"]["OMP_NUM_THREADS"] == "1"
        digests.append(cached.digest)
    assert digests[0] == digests[1]
