"""Valid settings of `kto`, for the tests of keys."""

from support.samples import TESTS, Samples, load

# The reference of `kto` is asked before, and with other layers there would be another.
SAMPLES = load(TESTS / "stages" / "training" / "samples.py") | Samples(
    refused=frozenset({"peft_layer_replication"})
)
