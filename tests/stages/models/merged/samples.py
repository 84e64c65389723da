"""Valid configs of the merged stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(beside={"merge_method": {"has_quantized_base": True}})
