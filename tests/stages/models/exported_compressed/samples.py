"""Valid configs of the exported_compressed stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(smallest={"scheme": "fp8-dynamic"})
