"""Valid configs of the base_model stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"base_model": "/model"},
    beside={
        "model_quantization_config": {"model_quantization_config_kwargs": {"dequantize": True}},
        "model_quantization_config_kwargs": {"model_quantization_config": None},
    },
    values={
        "base_model": ["/other"],
        "base_model_config": ["/other"],
        "quantization": [{"weight_dtype": "int4"}],
        "qat": [{"weight_dtype": "int4"}],
    },
)
