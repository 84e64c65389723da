"""What is wrong with the keys of a YAML, whatever their values: nobody knows them, or nobody in this graph reads them.

Where the graph's own stages read every key, no other has anything to say, and so no other is imported.
"""

from collections.abc import Iterator, Sequence

from tunemill.pipelines.config.check import are_all_known, own_keys, unknown_keys
from tunemill.pipelines.config.document import Document
from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.problems import Problem
from tunemill.pipelines.config.readers import are_all_read, unread_keys, wrong_values
from tunemill.pipelines.config.schema import Configs, config_classes, with_shared
from tunemill.pipelines.graph.place import Place
from tunemill.stages.declaration import StageConfig


def enough_for_keys(found: Sequence[Place], document: Document) -> Configs | None:
    """The configs of the graph, if they read all that stands in its YAML; None where those of all stages are needed."""
    readers = _readers(found)
    here = with_shared(readers[()])
    enough = are_all_known(document, here) and are_all_read(document, readers)
    return here if enough else None


def strange_keys(document: Document, configs: Configs | None = None) -> Iterator[Problem]:
    """Keys that none of `configs` knows, and what is wrong with those of one's own classes. None: all configs."""
    configs = configs or config_classes()
    yield from unknown_keys(document, configs)
    yield from own_keys(document, configs)


def unread_problems(graph: GraphConfig, found: Sequence[Place], document: Document) -> Iterator[Problem]:
    """Keys that nobody in the graph reads but others do, and wrong values of keys that nobody reads."""
    from tunemill.stages.registry import STAGES

    others = [stage for stage in STAGES if stage.name not in {place.stage.name for place in found}]
    # The graph reads of some keys only whether they are there.
    wrong = list(wrong_values(document, others, [place.stage.config for place in found]))
    yield from wrong
    known = {problem.path for problem in wrong}
    for problem in unread_keys(document, _readers(found), STAGES, graph.method):
        if problem.path not in known:
            yield problem


def _readers(found: Sequence[Place]) -> dict[KeyPath, list[type[StageConfig]]]:
    """The configs of the graph, by the dataset entry that they read (`()`: the top level)."""
    readers: dict[KeyPath, list[type[StageConfig]]] = {
        (): [*with_shared(place.stage.config for place in found)]
    }
    for place in found:
        if place.entry is not None:
            readers.setdefault(place.entry, []).append(place.stage.config)
    return readers
