"""The nodes that a command line means by a few words: names of nodes and stages, chapters of the stages, patterns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tunemill.pipelines.config.problems import ConfigError, Problem
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.stages.choices import nearest

WILDCARDS = "*?["


@dataclass(frozen=True)
class Selection:
    """What of a pipeline is asked for: `only` these nodes and what they need (None: all), `refresh` those again."""

    only: frozenset[str] | None = None
    refresh: frozenset[str] = frozenset()


def selection(pipeline: Pipeline, only: Sequence[str], refresh: Sequence[str]) -> Selection:
    """What the options `--only` and `--refresh` mean, each given any number of times, with commas or without.

    Who asks for a node with `--refresh` has named it, whatever `--only` says. Raises ConfigError for a word that means
    no node of the pipeline.
    """
    wanted, problems = _meant_by(pipeline, "--only", only)
    again, more = _meant_by(pipeline, "--refresh", refresh)
    if problems or more:
        raise ConfigError(pipeline.document.path, list(dict.fromkeys([*problems, *more])))
    return Selection(wanted | again if only else None, again)


def chapter_of(node: Node) -> str:
    """The chapter of the node's stage, which is a folder of `stages/`: data, models, training, evaluation."""
    _, inside, path = node.stage.body.partition("stages.")
    return path.partition(".")[0] if inside else node.stage.name


def _meant_by(pipeline: Pipeline, option: str, given: Sequence[str]) -> tuple[frozenset[str], list[Problem]]:
    found: set[str] = set()
    problems = []
    for text in given:
        words = [word.strip() for word in text.split(",") if word.strip()]
        if not words:
            problems.append(_problem(f"{option} names nothing. {_there_are(pipeline)}"))
        for word in words:
            meant = [node.name for node in pipeline.nodes if _means(word, node)]
            found.update(meant)
            if not meant:
                problems.append(_unknown(pipeline, option, word))
    return frozenset(found), problems


def _means(word: str, node: Node) -> bool:
    if any(sign in word for sign in WILDCARDS):
        return fnmatchcase(node.name, word)
    return word in (node.name, node.stage.name, chapter_of(node))


def _unknown(pipeline: Pipeline, option: str, word: str) -> Problem:
    if any(sign in word for sign in WILDCARDS):
        return _problem(f"{option} {word}: no node has such a name. {_there_are(pipeline)}")
    near = nearest(word, [name for names in _names(pipeline).values() for name in names])
    meant = f"; did you mean `{near[0]}`?" if near else "."
    return _problem(f"{option} {word}: there is no such node, stage or group{meant} {_there_are(pipeline)}")


def _names(pipeline: Pipeline) -> dict[str, list[str]]:
    nodes = pipeline.nodes
    return {
        "nodes": [node.name for node in nodes],
        "stages": _once(node.stage.name for node in nodes),
        "groups": _once(chapter_of(node) for node in nodes),
    }


def _there_are(pipeline: Pipeline) -> str:
    lists = [f"the {kind} {', '.join(names)}" for kind, names in _names(pipeline).items()]
    return f"There are {'; '.join(lists)}; a pattern such as 'evaluation_*' means nodes by their names"


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _problem(message: str) -> Problem:
    return Problem("", 1, 1, "value", message)
