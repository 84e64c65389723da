"""From which lines of which files the rows come that a stage's failure is about."""

from collections.abc import Mapping, Sequence
from importlib import import_module

from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.run.team import with_files
from tunemill.resources.errors import StoreError
from tunemill.resources.refs import Ref
from tunemill.resources.store import Published, Store
from tunemill.stages.errors import RowOf, RowPlace, places_text

# So many rows are traced: a person looks at the first ones.
TRACED = 20


def with_origins(
    message: str,
    rows: Sequence[int],
    pipeline: Pipeline,
    name: str,
    made: Published,
    store: Store,
) -> str:
    """The message, and where the first of these rows of the node `name`'s artifact come from."""
    if name not in {node.name for node in pipeline.nodes}:
        return message
    found = origins(rows[:TRACED], pipeline.node(name), made, pipeline, store)
    if not found:
        return message
    ordered = sorted(set(found), key=lambda place: (place.file, place.number))
    text = places_text(ordered, len(ordered) + len(rows[TRACED:]))
    what = "This row comes from" if len(rows) == 1 else "These rows come from"
    return f"{message} {what} {text}."


def origins(
    rows: Sequence[int], node: Node, made: Published, pipeline: Pipeline, store: Store
) -> list[RowPlace]:
    """The places of rows, counted from 0, of a node's artifact.

    They are places in its node itself where that cannot say more, or where what it was made from is gone. A row that
    was made of several has the places of all. Where each row has one, they are in the order of the rows.
    """
    inputs = _made_from(node, made, pipeline, store)
    if node.stage.traces is None or inputs is None:
        return [RowPlace(node.name, "row", row + 1) for row in rows]
    module, _, function = node.stage.traces.partition(":")
    given = {
        name: [node.stage.inputs[name].artifact(one.data) for one in ones] for name, ones in inputs.items()
    }
    found = getattr(import_module(module), function)(
        node.config,
        node.stage.output(made.data),
        rows,
        **{name: ones if node.stage.inputs[name].many else ones[0] for name, ones in given.items()},
    )
    places: dict[int, list[RowPlace]] = {}
    upstream: dict[tuple[str, int], list[int]] = {}
    for number, one in enumerate(found):
        if isinstance(one, RowOf):
            upstream.setdefault((one.input, one.index), []).append(number)
        else:
            places[number] = [one]
    for (name, index), numbers in upstream.items():
        above = pipeline.node(node.inputs[name][index])
        asked = [found[number].row for number in numbers]
        told = origins(asked, above, inputs[name][index], pipeline, store)
        is_one_each = len(told) == len(asked)
        places |= (
            dict(zip(numbers, ([place] for place in told), strict=True))
            if is_one_each
            else {numbers[0]: told}
        )
    return [place for number in sorted(places) for place in places[number]]


def _made_from(
    node: Node, made: Published, pipeline: Pipeline, store: Store
) -> Mapping[str, list[Published]] | None:
    """The artifacts that this one was made from, by input; None where one of them is gone."""
    found: dict[str, list[Published]] = {}
    for name, upstream in node.inputs.items():
        for above, edge in zip(upstream, made.manifest["inputs"][name], strict=True):
            one = _input(above, edge, pipeline, store)
            if one is None:
                return None
            found.setdefault(name, []).append(one)
    return found


def _input(name: str, edge: Mapping[str, str], pipeline: Pipeline, store: Store) -> Published | None:
    """What has the digest that was read: what the node points to now, whose files are today's, or else what was read.

    An artifact may have been made of other files with the same contents.
    """
    if name not in {node.name for node in pipeline.nodes}:
        return None
    now: Ref | None = store.refs.read(pipeline.name, name)
    read = (pipeline.node(name).stage.name, edge["key"])
    for stage, key in ([] if now is None else [(now.stage, now.key)]) + [read]:
        one = store.lookup(stage, key)
        if isinstance(one, Published) and one.digest == edge["digest"]:
            try:
                return with_files(store, one)
            except StoreError:
                # A user's mistake is told without it.
                return None
    return None
