"""Valid configs of the prompt_data stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(values={"excess_length_strategy": ["raise"]})
