"""Valid metrics, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    values={"metrics": [["numeric"], [{"metric": "regex", "pattern": "x"}]], "metric_code": [["/mine.py"]]}
)
