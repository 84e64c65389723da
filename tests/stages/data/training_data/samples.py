"""Valid configs of the training_data stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    beside={
        "dataset_shard_num": {"dataset_shard_num": 2, "dataset_shard_idx": 0},
        "dataset_shard_idx": {"dataset_shard_num": 2, "dataset_shard_idx": 0},
        "sample_packing_bin_size": {"sample_packing": True},
        "sample_packing_group_size": {"sample_packing": True},
        "sample_packing_sequentially": {"sample_packing": True},
    },
    refused=frozenset(["skip_prepare_dataset"]),
)
