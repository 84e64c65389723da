"""Valid configs of the base_model stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"base_model": "/model"},
    values={"base_model": ["/other"], "base_model_config": ["/other"]},
)
