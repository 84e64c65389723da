"""Valid settings of a task of inspect-ai, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    values={
        "task": ["/tasks/sums.py"],
        "task_files": [["/tasks/rows.jsonl"]],
        "inspect": [{"limit": 3}],
        "inspect_python": ["/opt/inspect/bin/python"],
    }
)
