"""Valid settings of a task, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    values={
        "task": ["/tasks/sums.yaml"],
        "task_files": [["/tasks/rows.jsonl"]],
        "lm_eval": [{"limit": 3}],
    }
)
