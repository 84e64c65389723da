"""Valid configs of the sft stage, for the tests of keys."""

from support.samples import TESTS, Samples, load

SAMPLES = load(TESTS / "stages" / "training" / "samples.py") | Samples(
    beside={
        "chunked_cross_entropy_num_chunks": {"chunked_cross_entropy": True},
        **{
            key: {"use_pose": True}
            for key in ("pose_max_context_len", "pose_num_chunks", "pose_split_on_token_ids")
        },
        "eaft_alpha": {"use_eaft": True},
        "eaft_k": {"use_eaft": True},
        "multipack_real_batches": {"sample_packing": True},
    },
    values={"pose_max_context_len": [65536]},
)
