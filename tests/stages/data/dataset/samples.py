"""Valid configs of the dataset stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"path": "/rows.jsonl"},
    beside={
        "data_files": {"path": "json", "data_files": ["/rows.jsonl"]},
        "name": {"path": "hf://datasets/owner/rows"},
        "revision": {"path": "hf://datasets/owner/rows"},
        "shards_idx": {"shards": 70},
        "seed": {"shards": 2},
    },
    values={
        "path": ["/other.jsonl"],
        "data_files": [["/other.jsonl"]],
        "ds_type": ["json", "csv"],
        "split": ["train[:10]"],
        "revision": ["other"],
    },
)
