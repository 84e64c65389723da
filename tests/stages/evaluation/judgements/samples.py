"""Valid settings of a judge, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"url": "http://127.0.0.1:8000/v1", "model": "judge"},
    values={
        "url": ["https://other/v1"],
        "prompt": ["{prediction}?"],
        "verdict": [r"\\d"],
        "values": [{"a": True, "b": False}],
    },
)
