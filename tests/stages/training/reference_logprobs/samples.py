"""Valid settings of the stage of log probabilities, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    beside={"lora_model_dir": {"adapter": "lora"}},
    values={"attn_implementation": ["eager"], "lora_model_dir": ["/other"]},
)
