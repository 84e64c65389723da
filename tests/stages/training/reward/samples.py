"""Valid configs of the reward stage, for the tests of keys."""

from support.samples import TESTS, Samples, load

SAMPLES = load(TESTS / "stages" / "training" / "samples.py") | Samples(
    beside={"peft_adapter": {}},
    refused=frozenset({"peft_adapter"}),
)
