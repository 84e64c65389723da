"""Valid settings of the evaluation, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    beside={"eval_causal_lm_metrics": {"do_causal_lm_eval": True}}, values={"teacher": ["/teacher"]}
)
