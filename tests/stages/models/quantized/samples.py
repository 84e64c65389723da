"""Valid configs of the quantized stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={},
    beside={},
    values={
        "quantization": [{"weight_dtype": "int4"}, {"group_size": 16}],
        "qat": [{}, {"weight_dtype": "int4", "activation_dtype": "int8"}],
    },
)
