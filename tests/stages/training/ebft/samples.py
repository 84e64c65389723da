"""Valid settings of `ebft`, for the tests of keys."""

from support.samples import TESTS, Samples, load

from tunemill.stages.training.ebft.config import OF_CALLS, OF_STRIDED

GRPO = load(TESTS / "stages" / "training" / "grpo" / "samples.py")
# There is no reward to be asked.
OF_REWARDS = ("reward_funcs", "reward_code", "reward_weights")
OF_PARTS = ("streaming_partial_batch", "streaming_min_groups")
SAMPLES = Samples(
    {name: value for name, value in GRPO.smallest.items() if name not in OF_REWARDS},
    {name: value for name, value in GRPO.beside.items() if name not in OF_REWARDS + OF_PARTS},
    {name: value for name, value in GRPO.values.items() if name not in OF_REWARDS},
    GRPO.refused | {"reward_funcs", "reward_weights", *OF_PARTS},
    frozenset(OF_CALLS),
) | Samples(
    beside={name: {"mode": "strided"} for name in OF_STRIDED},
    values={"feature_layers": [[0.5], [0.0, 1.0]], "reward_code": [["/letters.py"]]},
)
