"""Valid settings of the harness, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    values={
        "lm_eval_tasks": [["/tasks/sums.yaml"], ["/tasks/cities.yaml"]],
        "task_files": [["/tasks/rows.jsonl"]],
        "lm_eval_model": ["/model"],
        "lm_eval": [{"limit": 3}],
    },
)
