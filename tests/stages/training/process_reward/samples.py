"""Valid configs of the process_reward stage, for the tests of keys."""

from support.samples import TESTS, Samples, load

SAMPLES = load(TESTS / "stages" / "training" / "samples.py") | Samples(
    beside={"peft_adapter": {}, "multipack_real_batches": {"sample_packing": True}},
    refused=frozenset({"peft_adapter"}),
)
