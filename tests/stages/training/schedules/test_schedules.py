"""Schedules against values derived by hand, and their arguments against the functions that take them."""

import inspect
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR

from tunemill.stages.errors import SettingError
from tunemill.stages.training.schedules import factors
from tunemill.stages.training.schedules.build_body import build_scheduler
from tunemill.stages.training.schedules.table import OWN_ARGUMENTS, SCHEDULERS
from tunemill.stages.training.sft.config import SftConfig

# Of these transformers' own function takes anything, and hands it on.
HANDED_ON = {"one_cycle": OneCycleLR, "reduce_lr_on_plateau": ReduceLROnPlateau, "greedy": GreedyLR}
OURS = {"one_cycle", "rex", "log_sweep"}
NEEDED: dict[str, dict[str, Any]] = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 3},
    "log_sweep": {"min_lr": 0.01},
}


def config(name: str = "cosine", **settings: Any) -> SftConfig:
    kwargs = {"lr_scheduler_kwargs": NEEDED[name]} if name in NEEDED else {}
    return SftConfig(**{"learning_rate": 1.0, "lr_scheduler": name, **kwargs, **settings})


def rates(made: SftConfig, *, total: int = 10, warmup: int = 2, optimizer: Any = None) -> list[float]:
    """The learning rate of each step, as the schedule sets it."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = optimizer or torch.optim.SGD([weight], lr=1.0)
    scheduler = build_scheduler(made, optimizer, total, warmup)
    found = []
    for _ in range(total):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step(*([1.0] if made.chosen_scheduler.follows_held_out else []))
    return found


def test_cosine() -> None:
    # Two steps up; then 8 steps of half a cosine: its third quarter after 2 of them is (1 + cos 45) / 2.
    quarter = 0.5 * (1 + math.sqrt(0.5))
    assert [factors.cosine(s, warmup=2, total=10) for s in (0, 1, 2, 4, 6, 10)] == pytest.approx(
        [0, 0.5, 1, quarter, 0.5, 0]
    )
    assert factors.cosine(1, warmup=2, total=10, quadratic=True) == 0.25
    assert factors.cosine(6, warmup=2, total=10, minimum=0.2) == pytest.approx(0.2 + 0.8 * 0.5)
    # Down to the minimum at step 6, and there to the end.
    with_floor = [factors.cosine(s, warmup=2, total=10, minimum=0.2, floor_from=6) for s in (4, 6, 9)]
    assert with_floor == pytest.approx([0.2 + 0.8 * 0.5, 0.2, 0.2])
    assert factors.cosine(6, warmup=2, total=10, cycles=1.0) == pytest.approx(0)
    # A floor inside the rise: the rise goes first.
    assert [factors.cosine(s, warmup=4, total=10, minimum=0.2, floor_from=2) for s in (3, 4)] == [0.75, 0.2]


def test_rex() -> None:
    # 3 steps up, 7 down: 6/7 are left after the fourth, and (6/7) / (0.1 + 0.9 * 6/7) = 60/61.
    found = [factors.rex(step, warmup=3, total=10) for step in range(10)]
    assert found[:4] == pytest.approx([1 / 3, 2 / 3, 1, 60 / 61]) and found[9] == 0
    assert found[8] == pytest.approx((1 / 7) / (0.1 + 0.9 / 7))
    assert factors.rex(9, warmup=0, total=10, minimum=0.1) == 0.1
    assert rates(config("rex", cosine_min_lr_ratio=0.1), warmup=0)[0] == pytest.approx(0.1 + 0.9 * 0.9 / 0.91)


def test_log_sweep() -> None:
    assert rates(config("log_sweep"), total=3, warmup=0) == pytest.approx([0.01, 0.1, 1.0])
    swept = config("log_sweep", lr_scheduler_kwargs={"min_lr": 0.01, "max_lr": "1e2"})
    assert rates(swept, total=5, warmup=0) == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert rates(swept, total=1, warmup=0) == pytest.approx([0.01])


def test_jagged() -> None:
    found = [factors.jagged(step, every=5, warmup=2, anneal=2, minimum=0.1) for step in range(12)]
    # The first rise is the schedule's own. Of the two falling steps the second is half way down.
    cycle = [0.1, 0.55, 1, 1, 0.55]
    assert found == pytest.approx([1, 1, 1, 1, 0.55, *cycle, *cycle[:2]])


def test_restarts_go_over_any_schedule() -> None:
    settings = {"jagged_restart_steps": 4, "jagged_restart_warmup_steps": 2, "cosine_min_lr_ratio": 0.5}
    plain = rates(config(cosine_min_lr_ratio=0.5), warmup=1)
    scale = [1, 1, 1, 1, 0.5, 0.75, 1, 1, 0.5, 0.75]
    assert rates(config(**settings), warmup=1) == pytest.approx(
        [a * b for a, b in zip(plain, scale, strict=True)]
    )
    assert rates(config("constant", jagged_restart_steps=4))[4] == pytest.approx(0.001)
    assert rates(config("linear", jagged_restart_steps=4))[4] == pytest.approx(0.001 * 0.75)


def test_keys_of_cosine() -> None:
    assert rates(config(lr_quadratic_warmup=True))[:3] == pytest.approx([0, 0.25, 1])
    floor = rates(config(cosine_min_lr_ratio=0.2, cosine_constant_lr_ratio=0.6))
    assert floor[4] == pytest.approx(0.6) and floor[6:] == pytest.approx([0.2] * 4)
    # What 0.29 of 100 steps is, floating point takes for 28.
    late = rates(config(cosine_min_lr_ratio=0.2, cosine_constant_lr_ratio=0.29), total=100)
    assert late[28] > 0.2 and late[29] == pytest.approx(0.2)


def test_one_cycle() -> None:
    # PyTorch's: from a 25th up to the peak at the last step of the rise, and down to almost nothing.
    found = rates(config("one_cycle"), total=10, warmup=3)
    assert found[:4] == pytest.approx([0.04, 0.52, 1, 0.9504844], abs=1e-6) and found[9] < 1e-5
    adam = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    build_scheduler(config("one_cycle"), adam, 10, 3)
    assert adam.param_groups[0]["betas"][0] == 0.95
    still = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    build_scheduler(config("one_cycle", lr_scheduler_kwargs={"cycle_momentum": False}), still, 10, 3)
    assert still.param_groups[0]["betas"][0] == 0.9
    two = torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1.0, 0.1)]
    )
    build_scheduler(config("one_cycle"), two, 10, 3)
    assert [group["lr"] for group in two.param_groups] == pytest.approx([0.04, 0.004])
    with pytest.raises(SettingError, match="Adagrad has no momentum"):
        one = torch.optim.Adagrad([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        build_scheduler(config("one_cycle", lr_scheduler_kwargs={"cycle_momentum": True}), one, 10, 3)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_arguments_are_those_of_the_function(name: str) -> None:
    entry = SCHEDULERS[name]
    assert {*entry.needs, *entry.one_of, *entry.choices, *entry.least} <= set(entry.takes)
    if name in OURS - {"one_cycle"}:
        return
    function = HANDED_ON[name] if name in HANDED_ON else TYPE_TO_SCHEDULER_FUNCTION[name]
    parameters = inspect.signature(function).parameters
    own = {argument for argument in parameters if argument in OWN_ARGUMENTS and argument not in entry.takes}
    assert set(entry.takes) == set(parameters) - own
    required = {argument for argument, one in parameters.items() if one.default is inspect.Parameter.empty}
    assert set(entry.needs) == required - own


def test_every_scheduler_of_transformers_is_known() -> None:
    assert {kind.value for kind in TYPE_TO_SCHEDULER_FUNCTION} == set(SCHEDULERS) - OURS


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_runs_for_one_step_and_for_many(name: str) -> None:
    for total, warmup in ((1, 0), (4, 1), (30, 7)):
        if name in NEEDED and total < 3:
            continue
        found = rates(config(name), total=total, warmup=warmup)
        assert all(0 <= rate <= 1 for rate in found) and max(found) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_scheduler": "cosine_with_min_lr"}, "needs one of min_lr and min_lr_rate"),
        ({"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 0, "min_lr_rate": 0}}, "not both"),
        ({"lr_scheduler": "warmup_stable_decay"}, "warmup_stable_decay needs num_decay_steps"),
        ({"lr_scheduler": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": None}}, "needs num_dec"),
        ({"lr_scheduler_kwargs": {"num_cycle": 1}}, "cosine takes num_cycles. Did you mean num_cycles"),
        ({"lr_scheduler_kwargs": {"num_cycles": "many"}}, "num_cycles: must be a number .given: 'many'"),
        ({"lr_scheduler_kwargs": {"num_cycles": [1]}}, "num_cycles: must be a number"),
        ({"lr_scheduler_kwargs": {"num_cycles": True}}, "num_cycles: must be a number"),
        ({"lr_scheduler": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 1.5}}, "a whole number"),
        ({"lr_scheduler_kwargs": {"num_training_steps": 10}}, "num_training_steps is not set here: it follows from"),
        ({"lr_scheduler_kwargs": {"num_warmup_steps": 10}}, "the key for it is warmup_steps"),
        ({"lr_scheduler_kwargs": {"optimizer": "sgd"}}, "optimizer is not set here"),
        ({"lr_scheduler_kwargs": {"last_epoch": 1}}, "last_epoch is not set here"),
        ({"lr_scheduler": "one_cycle", "lr_scheduler_kwargs": {"max_lr": 1}}, "the key for it is learning_rate"),
        ({"lr_scheduler": "one_cycle", "lr_scheduler_kwargs": {"anneal_strategy": "cosine"}}, "one of cos, linear"),
        ({"lr_scheduler": "one_cycle", "lr_scheduler_kwargs": {"pct_start": 1}}, "must be below 1"),
        ({"lr_scheduler": "inverse_sqrt", "lr_scheduler_kwargs": {"timescale": 0}}, "must be at least 1"),
        ({"lr_scheduler": "polynomial", "lr_scheduler_kwargs": {"lr_end": 2}}, "it must be smaller"),
        ({"lr_scheduler": "polynomial", "learning_rate": 1e-8}, "it must be smaller"),
        ({"lr_scheduler": "log_sweep"}, "log_sweep needs min_lr"),
        ({"lr_scheduler": "log_sweep", "lr_scheduler_kwargs": {"min_lr": 0}}, "must be greater than 0"),
        ({"lr_scheduler": "reduce_lr_on_plateau", "warmup_steps": 2}, "has no warmup"),
        ({"lr_scheduler": "reduce_lr_on_plateau", "jagged_restart_steps": 5}, "goes by held-out rows"),
        ({"lr_scheduler": "reduce_lr_on_plateau", "has_held_out_rows": False}, "plateau goes by held-out rows, and"),
        ({"lr_scheduler": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 1.5}}, "a whole number"),
        ({"lr_scheduler": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"factor": 1}}, "must be below 1"),
        ({"lr_scheduler": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"mode": "max"}}, "less is better"),
        ({"lr_scheduler": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"mode": "median"}}, "one of min, max"),
        ({"lr_scheduler": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"min_lr": 1e-3}}, "it must be smaller"),
        ({"lr_scheduler": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"max_lr": 1}}, "is learning_rate"),
        ({"lr_scheduler": "greedy"}, "min_lr: 0.001: the rate falls to it from learning_rate, here 0.001"),
        ({"lr_scheduler": "greedy", "lr_scheduler_kwargs": {"min_lr": 0, "max_lr": 1e-4}}, "is below learning_rate"),
        ({"lr_scheduler": "greedy", "lr_scheduler_kwargs": {"min_lr": 0, "factor": 0}}, "must be greater than 0"),
        ({"lr_scheduler": "greedy", "lr_scheduler_kwargs": {"min_lr": 0, "verbose": True}}, "the run's log says"),
        ({"lr_scheduler": "greedy", "lr_scheduler_kwargs": {"min_lr": 0}, "optimizer": "adamw_torch_8bit"}, "in place"),
        ({"lr_scheduler": "linear", "lr_quadratic_warmup": True}, "lr_quadratic_warmup needs lr_scheduler: cosine"),
        ({"lr_scheduler": "linear", "cosine_min_lr_ratio": 0.1}, "needs lr_scheduler: cosine or rex, not linear"),
        ({"cosine_constant_lr_ratio": 0.5}, "needs cosine_min_lr_ratio"),
        ({"jagged_restart_steps": 3, "lr_scheduler": "one_cycle"}, "one_cycle is a single cycle"),
        ({"jagged_restart_steps": 3, "jagged_restart_warmup_steps": 4}, "fewer than the 4 of rise and fall"),
        ({"warmup_steps": 1.5}, "give whole steps, or a share"),
        ({"lr_scheduler": "log_sweep", "lr_scheduler_kwargs": {"min_lr": 0.1}, "warmup_steps": 2}, "has no warmup"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_are_refused_with_the_reason(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SftConfig(**{"learning_rate": 1e-3, **settings})


def test_parts_that_do_not_fit_the_steps_are_refused() -> None:
    with pytest.raises(
        SettingError, match="num_decay_steps: 3 after 9 steps of warmup are more than the 10 steps"
    ):
        rates(config("warmup_stable_decay"), warmup=9)
    for name in ("one_cycle", "rex"):
        with pytest.raises(SettingError, match="11 of 10 steps"):
            rates(config(name), warmup=11)
    assert rates(config("one_cycle"), total=4, warmup=1)[:2] == pytest.approx([1, 0.75], abs=1e-4)


def test_numbers_may_be_texts() -> None:
    # YAML 1.1 reads 1e-5 as a text.
    given = {"num_cycles": "1e0"}
    assert config(lr_scheduler_kwargs=given).scheduler_arguments == {"num_cycles": 1.0}
    assert config("cosine_with_restarts", lr_scheduler_kwargs={"num_cycles": 2.0}).scheduler_arguments == {
        "num_cycles": 2
    }


def test_notes() -> None:
    def idle(**settings: Any) -> set[str]:
        return {item.key for item in config(**settings).idle()}

    assert idle(cosine_constant_lr_ratio=0, cosine_min_lr_ratio=1.0) == {"cosine_constant_lr_ratio"}
    assert idle(jagged_restart_anneal_steps=1) == {"jagged_restart_anneal_steps"}
    assert idle(jagged_restart_anneal_steps=1, jagged_restart_steps=5) == set()
