"""Valid settings of `gdpo`, for the tests of keys."""

from support.samples import TESTS, Samples, load

SAMPLES = load(TESTS / "stages" / "training" / "grpo" / "samples.py") | Samples(
    refused=frozenset({"scale_rewards", "multi_objective_aggregation"})
)
