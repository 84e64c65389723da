"""Valid configs of the synthetic stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"path": "/rows.jsonl", "type": "_synthetic"},
    values={"path": ["/other.jsonl"], "max_input_id": [500]},
)
