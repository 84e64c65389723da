"""Processes that train a compiled model train what one trains without a compiler, as copies and as parts of a model."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from stages.training.test_sharded import CURVE, ROOT, Trained, check_same, keep_until, run
from support.own_environment import packages_with_deepspeed

# What PyTorch's own back end makes of an operation is another matter: this one traces, and computes as without it.
TRACED = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
COPIES, PARTS = ("copies:sft", "copies:dpo-lora"), ("fsdp:sft", "fsdp:sft-lora")
# What is around a model, and how its parameters are laid out.
SHARED = {
    "copies": ("DistributedDataParallel", None),
    "fsdp": ("FSDP", "(Shard(dim=0),)"),
    "hsdp": ("FSDP", "(Replicate(), Shard(dim=0))"),
    "zero2": ("DeepSpeedEngine", None),
    "zero3": ("DeepSpeedEngine", "ZeRO-3"),
}
GOING_ON = ("copies:dpo-lora", "fsdp:sft")


@pytest.fixture(scope="module", autouse=True)
def tests_importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained, Trained]:
    folder = tmp_path_factory.mktemp("compiled")
    alone = run(folder, 1, ["alone:sft", "alone:sft-lora", "alone:dpo-lora"])
    return folder, alone, run(folder, 2, [*COPIES, *PARTS], changes=TRACED)


def check_compiled(folder: Path, alone: Trained, found: Trained, name: str) -> None:
    """That several processes trained, that layers were compiled, and that it has changed nothing."""
    sharding, _, case = name.partition(":")
    around, layout = SHARED[sharding]
    assert found.figures[f"{name}/exchanged_by"].startswith(around)
    assert found.figures.get(f"{name}/layout") == layout
    # A layer alone has more operations than all that is around the layers.
    assert found.figures[f"{name}/operations_compiled"] > 60
    assert not alone.figures[f"alone:{case}/operations_compiled"]
    check_same(folder, found, alone, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COPIES, *PARTS])
def test_what_is_compiled_is_trained_as_without_a_compiler(
    trained: tuple[Path, Trained, Trained], name: str
) -> None:
    folder, alone, two = trained
    assert two.figures[f"{name}/processes"] == 2
    check_compiled(folder, alone, two, name)


@pytest.mark.slow
def test_it_goes_on_compiled_and_without_a_compiler(
    trained: tuple[Path, Trained, Trained], tmp_path: Path
) -> None:
    folder, alone, _ = trained
    for name in GOING_ON:
        _, _, case = name.partition(":")
        shutil.copytree(folder / "given" / case, tmp_path / "given" / case)
        for going_on in (name, f"alone:{case}"):
            shutil.copytree(folder / name.replace(":", "-"), tmp_path / going_on.replace(":", "-"))
            keep_until(tmp_path / going_on.replace(":", "-"), 4)
    found = run(tmp_path, 2, GOING_ON, changes=TRACED)
    plain = run(tmp_path, 1, [f"alone:{name.partition(':')[2]}" for name in GOING_ON])
    for name in GOING_ON:
        same = alone.losses[f"alone:{name.partition(':')[2]}"]
        for losses in (found.losses[name], plain.losses[f"alone:{name.partition(':')[2]}"]):
            assert min(losses) == 5
            assert max(abs(losses[step] - same[step]) for step in losses) < CURVE


@pytest.mark.slow
def test_checkpoints_of_copies_have_the_names_of_the_model(trained: tuple[Path, Trained, Trained]) -> None:
    folder, *_ = trained
    for case, file in (("sft", "model.safetensors"), ("dpo-lora", "adapter_model.safetensors")):
        found, wanted = (
            load_file(folder / f"{one}-{case}" / "checkpoints" / "checkpoint-8" / file)
            for one in ("copies", "alone")
        )
        assert found.keys() == wanted.keys()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("processes", "names", "changes"),
    [(2, ("copies:sft", "fsdp:sft"), {}), (4, ("hsdp:sft",), {"torch_compile_backend": "aot_eager"})],
)
def test_so_it_is_by_inductor_and_by_copies_of_parts(
    tmp_path: Path, processes: int, names: tuple[str, ...], changes: dict[str, Any]
) -> None:
    if not changes and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler (g++) to compile for a CPU")
    alone = run(tmp_path, 1, ["alone:sft"])
    found = run(tmp_path, processes, names, changes={"torch_compile": True, **changes})
    for name in names:
        check_compiled(tmp_path, alone, found, name)


@pytest.mark.exhaustive
def test_so_it_is_by_deepspeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{os.environ['PYTHONPATH']}{os.pathsep}{packages_with_deepspeed()}")
    monkeypatch.syspath_prepend(packages_with_deepspeed())
    names = [f"{sharding}:{case}" for sharding in ("zero2", "zero3") for case in ("sft", "sft-lora")]
    alone = run(tmp_path, 1, ["alone:sft", "alone:sft-lora"])
    found = run(tmp_path, 2, names, changes=TRACED)
    for name in names:
        assert found.figures[f"{name}/processes"] == 2
        check_compiled(tmp_path, alone, found, name)
    for name in names[1:3]:
        keep_until(tmp_path / name.replace(":", "-"), 4)
    again = run(tmp_path, 2, names[1:3], changes=TRACED)
    for name in names[1:3]:
        losses, same = again.losses[name], alone.losses[f"alone:{name.partition(':')[2]}"]
        assert min(losses) == 5 and max(abs(losses[step] - same[step]) for step in losses) < CURVE
