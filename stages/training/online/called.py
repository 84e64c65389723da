"""What is shown of the calls of completions: how many there were, which failed, and why."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tunemill.stages.training.online.rewards import LISTED
from tunemill.stages.training.online.rollouts import Rollout


def figures_of_calls(rollouts: Sequence[Rollout]) -> dict[str, npt.NDArray[np.float64]]:
    """Of each completion how often it called a tool, and how often that failed; nothing where none could."""
    found = [one.episode for one in rollouts if one.episode is not None]
    if not found:
        return {}
    return {
        "tools/call_frequency": np.array([one.calls for one in found], np.float64),
        "tools/failures": np.array([len(one.failures) for one in found], np.float64),
    }


def failed_calls(rollouts: Sequence[Rollout]) -> str | None:
    """Which calls of a round failed, and why; None where none did."""
    found = [one.episode for one in rollouts if one.episode is not None]
    kinds = Counter(words for one in found for words in one.failures)
    if not kinds:
        return None
    lines = [f"  {words} ({count} calls)" for words, count in kinds.most_common(LISTED)]
    more = [f"  and {len(kinds) - LISTED} other kinds"] if len(kinds) > LISTED else []
    calls = sum(one.calls for one in found)
    return "\n".join(
        [f"{kinds.total()} of {calls} calls of tools failed, which the model was told:", *lines, *more]
    )
