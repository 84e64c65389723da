"""Valid configs of the hub_files stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"repository": "hf://models/owner/name"},
    values={"repository": ["hf://models/owner/other"], "base_model_ignore_patterns": [["*.bin"]]},
)
