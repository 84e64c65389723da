"""Valid configs of the stored_logprobs stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"path": "/rows.jsonl", "logprobs_field": "logprobs"}, values={"path": ["/other.jsonl"]}
)
