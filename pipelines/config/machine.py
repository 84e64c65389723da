"""Whether this machine has a GPU, told without the libraries that drive one: `check` must be fast."""

import os
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path

from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.problems import Problem
from tunemill.stages.declaration import GpuMark, StageConfig

DEVICES = ("nvidia[0-9]*", "kfd", "dxg")


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether a GPU's device file is there and `CUDA_VISIBLE_DEVICES` hides none."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(next(devices.glob(name), None) for name in DEVICES)


def gpu_count(devices: Path = Path("/dev")) -> int:
    """How many GPUs are visible: those that `CUDA_VISIBLE_DEVICES` names, or else all; 1 where nobody can say."""
    if not has_gpu(devices):
        return 0
    there = len(list(devices.glob(DEVICES[0]))) or 1
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return there if named is None else min(there, len(visible_gpus(os.environ, devices)))


def visible_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that are visible, as `CUDA_VISIBLE_DEVICES` names them, or else by number; none where there is none."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        # As CUDA reads it: what stands behind a number that no GPU has is hidden.
        return list(takewhile("-1".__ne__, (one.strip() for one in named.split(",") if one.strip())))
    return [str(number) for number in range(len(list(devices.glob(DEVICES[0]))))]


def meant_without_gpu(
    config: StageConfig, places: dict[str, KeyPath], document: Document
) -> Iterator[Problem]:
    """Notes on settings that mean something else on a machine without a GPU, or that need one to run."""
    for item in config.needs_gpu():
        message = f"{item.reason}. This machine has none; another one may"
        yield problem_at(places[item.key], document, "elsewhere", message)
    for field, mark in config.marked(GpuMark).items():
        if field in config.model_fields_set and getattr(config, field) == mark.value:
            yield problem_at(places[field], document, "idle", f"{mark.value}: {mark.without}")
