"""What samples completions in another way than one turn behind a prompt, where the settings ask for that."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tunemill.stages.artifacts import Model
from tunemill.stages.training.online.episodes_body import Player, calling_player
from tunemill.stages.training.online.keys import OnlineKeys
from tunemill.stages.training.online.rollout_body import rollout_player


def player(
    config: OnlineKeys,
    base_model: Model,
    words: Any,
    ends: frozenset[int],
    step: Callable[[], int],
    model: Any,
) -> AbstractContextManager[Player | None]:
    """Calls of tools, a function of one's own, or None: the engine alone. `step` is the one that is taken, from 1."""
    if config.rollout_func is not None:
        return rollout_player(config, model, words, ends, lambda: max(0, step() - 1))
    if config.calls_tools:
        return calling_player(config, base_model, ends)
    return nullcontext()
