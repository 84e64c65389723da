"""The scheduler that a config asks for, over an optimizer."""

from functools import partial
from typing import Any

from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from transformers import get_scheduler

from tunemill.stages.errors import SettingError
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.schedule import share_of
from tunemill.stages.training.schedules import factors

# As in Axolotl, where the YAML does not say.
RESTART_WARMUP, RESTART_ANNEAL, RESTART_MINIMUM = 10, 1, 0.001


def build_scheduler(config: TrainingKeys, optimizer: Any, total: int, warmup: int) -> Any:
    """`total` and `warmup` are optimizer steps. Raises SettingError where the parts of a schedule do not fit."""
    scheduler = _scheduler(config, optimizer, total, warmup)
    if not config.jagged_restart_steps:
        return scheduler
    (factor,) = set(scheduler.lr_lambdas)
    return LambdaLR(optimizer, partial(_restarting, factor, config))


def _scheduler(config: TrainingKeys, optimizer: Any, total: int, warmup: int) -> Any:
    arguments, minimum = config.scheduler_arguments, config.cosine_min_lr_ratio or 0.0
    if warmup > 0 and warmup >= total and config.lr_scheduler in ("one_cycle", "rex"):
        raise SettingError(
            f"warmup_steps: {warmup} of {total} steps: no step is left to fall. Warm up shorter."
        )
    if config.chosen_scheduler.follows_held_out:
        # The Trainer leaves these alone at each step; `HeldOutRates` tells them of each evaluation.
        arguments = {**arguments, "mode": config.held_out_mode}
        return get_scheduler(config.lr_scheduler, optimizer, scheduler_specific_kwargs=arguments)
    if config.lr_scheduler == "one_cycle":
        return _one_cycle(optimizer, arguments, total, warmup)
    if config.lr_scheduler == "rex":
        return LambdaLR(optimizer, partial(factors.rex, warmup=warmup, total=total, minimum=minimum))
    if config.lr_scheduler == "log_sweep":
        ends = (arguments["min_lr"], arguments.get("max_lr", config.learning_rate))
        first, last = (end / config.learning_rate for end in ends)
        return LambdaLR(optimizer, partial(factors.log_sweep, total=total, first=first, last=last))
    if config.lr_quadratic_warmup or config.cosine_constant_lr_ratio:
        floor_from = None
        if config.cosine_constant_lr_ratio:
            floor_from = int(share_of(total, config.cosine_constant_lr_ratio))
        return LambdaLR(
            optimizer,
            partial(
                factors.cosine,
                warmup=warmup,
                total=total,
                minimum=minimum,
                floor_from=floor_from,
                cycles=arguments.get("num_cycles", 0.5),
                quadratic=bool(config.lr_quadratic_warmup),
            ),
        )
    if config.lr_scheduler == "warmup_stable_decay" and warmup + arguments["num_decay_steps"] > total:
        raise SettingError(
            f"lr_scheduler_kwargs: num_decay_steps: {arguments['num_decay_steps']} after {warmup} steps of warmup are "
            f"more than the {total} steps of this training. Decay or warm up shorter."
        )
    if config.cosine_min_lr_ratio is not None:
        return get_scheduler("cosine_with_min_lr", optimizer, warmup, total, {"min_lr_rate": minimum})
    return get_scheduler(config.lr_scheduler, optimizer, warmup, total, arguments)


def _one_cycle(optimizer: Any, arguments: dict[str, Any], total: int, warmup: int) -> OneCycleLR:
    """PyTorch's. Momentum, or the first of Adam's betas, runs against the rate where the optimizer has it."""
    has_momentum = bool({"betas", "momentum"} & set(optimizer.defaults))
    if arguments.get("cycle_momentum") and not has_momentum:
        raise SettingError(
            f"lr_scheduler_kwargs: cycle_momentum: true: {type(optimizer).__name__} has no momentum. Remove it."
        )
    given = {"pct_start": warmup / total, "anneal_strategy": "cos", **arguments}
    if given["pct_start"] * total == 1:
        # PyTorch divides by the length of a rise that begins and ends with the first step; so it begins to fall there.
        given["pct_start"] -= 1e-9
    given.setdefault("cycle_momentum", has_momentum)
    return OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=total, **given
    )


def _restarting(factor: Any, config: TrainingKeys, step: int) -> float:
    assert config.jagged_restart_steps is not None
    restart = factors.jagged(
        step,
        every=config.jagged_restart_steps,
        warmup=config.jagged_restart_warmup_steps or RESTART_WARMUP,
        anneal=config.jagged_restart_anneal_steps or RESTART_ANNEAL,
        minimum=config.cosine_min_lr_ratio or RESTART_MINIMUM,
    )
    return float(factor(step) * restart)
