"""Valid configs of the pretraining_data stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"path": "/rows.jsonl", "type": "pretrain", "max_steps": 10},
    beside={
        "data_files": {"path": "json", "data_files": ["/rows.jsonl"]},
        "name": {"path": "hf://datasets/owner/rows"},
        "revision": {"path": "hf://datasets/owner/rows"},
        "pretrain_multipack_attn": {"sample_packing": True},
        "sample_packing_bin_size": {"sample_packing": True},
        "sample_packing_group_size": {"sample_packing": True},
        "sample_packing_sequentially": {"sample_packing": True},
    },
    values={
        "path": ["/other.jsonl"],
        "data_files": [["/other.jsonl"]],
        "ds_type": ["json", "csv"],
        "split": ["train[:10]"],
        "revision": ["other"],
    },
    refused=frozenset(
        ["dataset_exact_deduplication", "excess_length_strategy", "shards", "shards_idx", "val_set_size"]
    ),
)
