"""Valid settings of `ipo`, for the tests of keys."""

from support.samples import TESTS, Samples, load

SAMPLES = load(TESTS / "stages" / "training" / "samples.py") | Samples(
    beside={"peft_layer_replication": {"precompute_ref_log_probs": False}}
)
