"""Valid configs of the exported_gguf stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(smallest={"type": "q8_0"})
