"""Which checkpoints can be gone on from with DeepSpeed, or without it; and where a schedule stood among its groups."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from tunemill.stages.errors import SettingError
from tunemill.stages.training.parts_body import check_readable
from tunemill.stages.training.sharding import Fsdp, Sharding, Zero
from tunemill.stages.training.zero_body import filled_groups, resume_schedule

ALONE = Sharding()
PARTS = Sharding(2, shards=2, fsdp=Fsdp())


def zero(stage: int, processes: int = 2, **settings: Any) -> Sharding:
    return Sharding(processes, shards=processes, zero=Zero(stage, {"zero_optimization": settings}))


def written(folder: Path, kind: str) -> Path:
    """The names of the files of a checkpoint."""
    two = [f"rng_state_{rank}.pth" for rank in range(2)]
    states = [f"global_step4/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(2)]
    files = {
        "one": ["model.safetensors", "optimizer.pt"],
        "fsdp": ["pytorch_model_fsdp_0/.metadata", *two],
        "zero0": ["global_step4/mp_rank_00_model_states.pt", *two],
        "zero2": ["global_step4/mp_rank_00_model_states.pt", *states, *two],
        "zero3": [*(one.replace("optim", "model") for one in states), *states, *two],
    }
    for name in files[kind]:
        path = folder / "checkpoint-4" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder / "checkpoint-4"


@pytest.fixture
def deepspeed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is there to be found, and need not be imported."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "deepspeed").mkdir()
    (folder / "deepspeed" / "__init__.py").touch()
    monkeypatch.syspath_prepend(folder)


@pytest.mark.usefixtures("deepspeed")
@pytest.mark.parametrize(
    ("kind", "sharding", "optimizer"),
    [
        ("one", ALONE, "lion_pytorch"),
        ("one", PARTS, "sgd"),
        ("one", zero(2), "sgd"),
        ("one", zero(3), "adamw_torch"),
        ("fsdp", ALONE, "adamw_torch"),
        ("zero2", zero(2), "sgd"),
        ("zero2", zero(1), "sgd"),
        ("zero3", zero(3), "sgd"),
        ("zero2", zero(3), "adamw_torch"),
        ("zero2", zero(2, 4), "adamw_torch_fused"),
        ("zero2", ALONE, "adamw_torch"),
        ("zero3", PARTS, "adamw_torch"),
    ],
)
def test_it_goes_on_from_these(tmp_path: Path, kind: str, sharding: Sharding, optimizer: str) -> None:
    check_readable(str(written(tmp_path, kind)), sharding, optimizer)


@pytest.mark.usefixtures("deepspeed")
@pytest.mark.parametrize(
    ("kind", "sharding", "optimizer", "said"),
    [
        ("fsdp", zero(2), "adamw_torch", "shared the model by FSDP wrote it"),
        (
            "zero2",
            ALONE,
            "sgd",
            "on 2 processes, and this training runs without DeepSpeed on 1. Of sgd its state",
        ),
        ("zero3", zero(3, 4), "rmsprop", "Of rmsprop its state goes on with as many only"),
        ("zero0", ALONE, "adamw_torch", "With ZeRO stage 0"),
        ("one", zero(0), "adamw_torch", "with ZeRO stage 0"),
        (
            "zero2",
            zero(3, 4, offload_optimizer={"device": "nvme"}),
            "adamw_torch",
            "offload_optimizer to nvme",
        ),
    ],
)
def test_and_from_these_it_does_not(
    tmp_path: Path, kind: str, sharding: Sharding, optimizer: str, said: str
) -> None:
    checkpoint = written(tmp_path, kind)
    with pytest.raises(SettingError, match=r"delete .* to begin anew") as found:
        check_readable(str(checkpoint), sharding, optimizer)
    assert said in str(found.value) and str(checkpoint) in str(found.value)


@pytest.mark.usefixtures("deepspeed")
def test_nobody_is_told_to_delete_the_checkpoint_of_another_run(tmp_path: Path) -> None:
    other, own = str(written(tmp_path / "other", "zero2")), str(written(tmp_path / "own", "zero2"))
    with pytest.raises(SettingError, match=r"^resume_from_checkpoint: .* take the key out") as found:
        check_readable(other, ALONE, "sgd", other)
    assert other in str(found.value) and "or delete" not in str(found.value)
    with pytest.raises(SettingError, match=r"delete .*own to begin anew"):
        check_readable(own, ALONE, "sgd", other)


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="DeepSpeed is installed")
def test_one_that_zero_wrote_needs_deepspeed(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="needs the package deepspeed, which is not installed"):
        check_readable(str(written(tmp_path, "zero2")), ALONE, "adamw_torch")


def scheduled(*rates: float | None) -> LambdaLR:
    """A schedule over one group of parameters for each rate; one without parameters for None."""
    groups = [
        {"params": [] if rate is None else [torch.zeros(1, requires_grad=True)], "lr": rate or 9.0}
        for rate in rates
    ]
    return LambdaLR(SGD(groups), lambda step: 1 / (1 + step))


@pytest.mark.parametrize(
    ("before", "after", "rates"),
    [((0.4, None, 0.2), (0.4, 0.2), [0.2, 0.1]), ((0.4, 0.2), (0.4, None, 0.2), [0.2, 9.0, 0.1])],
)
def test_a_schedule_goes_on_among_the_groups_that_have_parameters(
    tmp_path: Path, before: tuple[float | None, ...], after: tuple[float | None, ...], rates: list[float]
) -> None:
    old, new = scheduled(*before), scheduled(*after)
    old.optimizer.step()
    old.step()
    torch.save(old.state_dict(), tmp_path / "scheduler.pt")
    plain = old if None in before else new
    resume_schedule(new, tmp_path, filled_groups(plain.optimizer))
    assert [group["lr"] for group in new.optimizer.param_groups] == rates
    new.optimizer.step()
    new.step()
    old.optimizer.step()
    old.step()
    assert new.get_last_lr()[0] == old.get_last_lr()[0] and new.get_last_lr()[-1] == old.get_last_lr()[-1]
