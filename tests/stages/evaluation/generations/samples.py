"""Valid settings of generated answers, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(values={"engine": ["vllm"], "vllm_python": ["/opt/vllm/bin/python"]})
