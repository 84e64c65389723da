"""Valid settings of `dpo`, for the tests of keys."""

from support.samples import TESTS, Samples, load

SAMPLES = load(TESTS / "stages" / "training" / "samples.py") | Samples(
    beside={
        "dpo_label_smoothing": {"dpo_loss_type": ["robust"]},
        "peft_layer_replication": {"precompute_ref_log_probs": False},
    },
    values={"dpo_loss_type": [["hinge"]], "dpo_loss_weights": [[0.5]], "dpo_label_smoothing": [0.2]},
)
