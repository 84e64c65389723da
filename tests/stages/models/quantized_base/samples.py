"""Valid configs of the quantized_base stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"load_in_4bit": True},
    beside={},
    values={"bnb_config_kwargs": [{"bnb_4bit_quant_type": "fp4"}]},
)
