"""Where in the YAML entries of datasets stand: in the lists of datasets, and one in each evaluation that has rows of
its own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tunemill.pipelines.config.graph_config import ENTRY_LISTS
from tunemill.pipelines.config.key_paths import KeyPath

# The list of evaluations, and the key of each that holds an entry; it is read as one of this list of datasets.
EVALUATIONS = ("pipeline", "evaluations")
DATA = "data"
READ_AS = "test_datasets"


def dataset_entries(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    """Every entry of a dataset, with its place."""
    for group in ENTRY_LISTS:
        entries = data.get(group)
        yield from (
            ((group, index), entry)
            for index, entry in enumerate(entries if isinstance(entries, list) else ())
        )
    own = data.get(EVALUATIONS[0])
    evaluations = own.get(EVALUATIONS[1]) if isinstance(own, dict) else None
    for index, evaluation in enumerate(evaluations if isinstance(evaluations, list) else ()):
        if isinstance(evaluation, dict) and DATA in evaluation:
            yield (*EVALUATIONS, index, DATA), evaluation[DATA]


def entry_of(place: KeyPath) -> KeyPath:
    """The entry of a dataset in which a key stands; none where it stands in none."""
    if len(place) == 3 and place[0] in ENTRY_LISTS:
        return place[:2]
    if len(place) == 5 and place[:2] == EVALUATIONS and place[3] == DATA:
        return place[:4]
    return ()


def group_of(entry: KeyPath) -> str:
    """The list of datasets as one of which an entry is read."""
    return str(entry[0]) if entry[0] in ENTRY_LISTS else READ_AS
