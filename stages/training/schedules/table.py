"""Every scheduler by its name in Axolotl, with what it takes from lr_scheduler_kwargs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunemill.stages.training.arguments import Kinds

CURVES = ("linear", "cosine", "1-sqrt")


@dataclass(frozen=True)
class Scheduler:
    """`takes`: arguments with types; `needs`: those that must be given; `one_of`: of which exactly one must be.

    `choices`: argument to the values that it may have. `least`: argument to the smallest number that it may be,
    `below`: to one that it must stay below, `above`: above. `follows_held_out`: the rate goes by what held-out rows say
    at each evaluation, and not by steps.
    """

    takes: Kinds = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    below: Mapping[str, float] = field(default_factory=dict)
    above: Mapping[str, float] = field(default_factory=dict)
    warms_up: bool = True
    follows_held_out: bool = False


WITH_MINIMUM: Kinds = {"num_cycles": float, "min_lr": float, "min_lr_rate": float}
FLOORS = {"min_lr": 0, "min_lr_rate": 0}

PLATEAU: Kinds = {
    "mode": str, "factor": float, "patience": int, "threshold": float, "threshold_mode": str, "cooldown": int,
}  # fmt: skip
PLATEAU_CHOICES = {"mode": ("min", "max"), "threshold_mode": ("rel", "abs")}
PLATEAU_LEAST = {"factor": 0, "patience": 0, "threshold": 0, "cooldown": 0, "min_lr": 0, "eps": 0}

SCHEDULERS: dict[str, Scheduler] = {
    "linear": Scheduler(),
    "cosine": Scheduler({"num_cycles": float}),
    "cosine_with_restarts": Scheduler({"num_cycles": int}, least={"num_cycles": 1}),
    "polynomial": Scheduler({"lr_end": float, "power": float}, least={"lr_end": 0}),
    "constant": Scheduler(warms_up=False),
    "constant_with_warmup": Scheduler(),
    "inverse_sqrt": Scheduler({"timescale": int}, least={"timescale": 1}),
    "cosine_with_min_lr": Scheduler(WITH_MINIMUM, one_of=("min_lr", "min_lr_rate"), least=FLOORS),
    "cosine_warmup_with_min_lr": Scheduler(
        {**WITH_MINIMUM, "warmup_lr_rate": float},
        one_of=("min_lr", "min_lr_rate"),
        least={**FLOORS, "warmup_lr_rate": 0},
    ),
    "warmup_stable_decay": Scheduler(
        {
            "num_decay_steps": int, "num_stable_steps": int, "warmup_type": str, "decay_type": str,
            "min_lr_ratio": float, "num_cycles": float,
        },
        needs=("num_decay_steps",),
        choices={"warmup_type": CURVES, "decay_type": CURVES},
        least={"num_decay_steps": 0, "num_stable_steps": 0, "min_lr_ratio": 0},
    ),
    "one_cycle": Scheduler(
        {
            "pct_start": float, "anneal_strategy": str, "cycle_momentum": bool, "base_momentum": float,
            "max_momentum": float, "div_factor": float, "final_div_factor": float, "three_phase": bool,
        },
        choices={"anneal_strategy": ("cos", "linear")},
        least={"pct_start": 0, "div_factor": 1, "final_div_factor": 1},
        below={"pct_start": 1, "base_momentum": 1, "max_momentum": 1},
    ),
    "rex": Scheduler(),
    "log_sweep": Scheduler(
        {"min_lr": float, "max_lr": float}, needs=("min_lr",), above={"min_lr": 0, "max_lr": 0}, warms_up=False,
    ),
    "reduce_lr_on_plateau": Scheduler(
        {**PLATEAU, "min_lr": float, "eps": float},
        choices=PLATEAU_CHOICES, least=PLATEAU_LEAST, below={"factor": 1}, warms_up=False, follows_held_out=True,
    ),
    "greedy": Scheduler(
        {
            **PLATEAU, "min_lr": float, "max_lr": float, "eps": float, "warmup": int, "smooth": bool,
            "window_size": int, "reset_start": int,
        },
        choices=PLATEAU_CHOICES,
        least={**PLATEAU_LEAST, "warmup": 0, "window_size": 1, "reset_start": 1},
        below={"factor": 1}, above={"factor": 0}, warms_up=False, follows_held_out=True,
    ),
}  # fmt: skip

# What schedulers take in transformers or PyTorch and what our own keys say.
OWN_ARGUMENTS = {
    "optimizer": "the optimizer is that of the key optimizer",
    "last_epoch": "a training that is resumed goes on by itself",
    "num_warmup_steps": "the key for it is warmup_steps",
    "warmup_steps": "the key for it is warmup_steps",
    "num_training_steps": "it follows from num_epochs or max_steps",
    "total_steps": "it follows from num_epochs or max_steps",
    "epochs": "the key for it is num_epochs",
    "steps_per_epoch": "it follows from the data",
    "lr": "the key for it is learning_rate",
    "max_lr": "the key for it is learning_rate",
    "verbose": "the run's log says when the rate changes",
}
