"""Valid configs of the distillation stage, for the tests of keys."""

from support.samples import TESTS, Samples, load

SAMPLES = load(TESTS / "stages" / "training" / "samples.py") | Samples(
    beside={"multipack_real_batches": {"sample_packing": True}, "kd_alpha": {"kd_ce_alpha": 0.5}},
    values={"kd_alpha": [0.5], "kd_ce_alpha": [0.5], "kd_beta": [0.5]},
)
