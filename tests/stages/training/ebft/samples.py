"""Valid settings of `ebft`, for the tests of keys."""

from support.samples import TESTS, Samples, load

from tunemill.stages.training.ebft.config import OF_CALLS, OF_STRIDED
from tunemill.stages.training.online.environment_keys import RENDERED

GRPO = load(TESTS / "stages" / "training" / "grpo" / "samples.py")
# There is no reward to be asked.
OF_REWARDS = ("reward_funcs", "reward_code", "reward_weights")
# Nor anything to be called.
CALLED = (
    "environment_factory",
    "environment_code",
    "tools",
    "tools_code",
    "rollout_func",
    "rollout_code",
    *RENDERED,
    "max_tool_calling_iterations",
    "environment_reward",
)
OF_PARTS = ("streaming_partial_batch", "streaming_min_groups")
SAMPLES = Samples(
    {name: value for name, value in GRPO.smallest.items() if name not in OF_REWARDS},
    {name: value for name, value in GRPO.beside.items() if name not in OF_REWARDS + OF_PARTS + CALLED},
    {name: value for name, value in GRPO.values.items() if name not in OF_REWARDS + CALLED},
    GRPO.refused
    | {"reward_funcs", "reward_weights", *OF_PARTS, "environment_factory", "tools", "rollout_func"}
    | {"multi_objective_aggregation"},
    frozenset((*OF_CALLS, "max_tool_calling_iterations", "environment_reward")),
) | Samples(
    beside={name: {"mode": "strided"} for name in OF_STRIDED},
    values={
        "feature_layers": [[0.5], [0.0, 1.0]],
        "reward_code": [["/letters.py"]],
        "environment_code": [["/a.py"]],
        "tools_code": [["/a.py"]],
        "rollout_code": [["/a.py"]],
    },
)
