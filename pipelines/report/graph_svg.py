"""The graph of a pipeline as a picture: every node, what became of it, and how long that took."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.nodes import Pipeline

BOX_WIDTH, BOX_HEIGHT, GAP_ACROSS, GAP_DOWN, MARGIN = 178, 40, 34, 14, 8
# So many letters fit into a box.
LONGEST = 22


@dataclass(frozen=True)
class Shown:
    """What a box says below the node's name, and its state, which gives it its colour."""

    state: str
    words: str


def graph_svg(pipeline: Pipeline, shown: Mapping[str, Shown]) -> str:
    """The text of an SVG; its boxes have the classes of a page's style: `box-computed` and so on."""
    columns = _columns(pipeline)
    places = {
        name: (MARGIN + number * (BOX_WIDTH + GAP_ACROSS), _top(row, len(column), columns))
        for number, column in enumerate(columns)
        for row, name in enumerate(column)
    }
    width = 2 * MARGIN + len(columns) * (BOX_WIDTH + GAP_ACROSS) - GAP_ACROSS
    height = _height(columns)
    edges = (
        _edge(places[up], places[node.name])
        for node in pipeline.nodes
        for up in upstream_of(node)
        if up in places
    )
    boxes = (_box(node.name, places[node.name], shown[node.name]) for node in pipeline.nodes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img"><title>the graph</title>{"".join(edges)}{"".join(boxes)}</svg>'
    )


def _columns(pipeline: Pipeline) -> list[list[str]]:
    """The nodes by how far they stand from the beginning, those of a column near what they are made from."""
    depth: dict[str, int] = {}
    for node in pipeline.nodes:
        depth[node.name] = 1 + max((depth[up] for up in upstream_of(node) if up in depth), default=-1)
    columns: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=0))]
    for name, at in depth.items():
        columns[at].append(name)
    ups = {node.name: [up for up in upstream_of(node) if up in depth] for node in pipeline.nodes}
    for number in range(1, len(columns)):
        rows = {
            name: row / max(len(column), 1) for column in columns[:number] for row, name in enumerate(column)
        }
        columns[number].sort(key=lambda name: _mean([rows[up] for up in ups[name]]))
    return columns


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _height(columns: Sequence[Sequence[str]]) -> int:
    most = max(map(len, columns), default=1)
    return 2 * MARGIN + most * (BOX_HEIGHT + GAP_DOWN) - GAP_DOWN


def _top(row: int, count: int, columns: Sequence[Sequence[str]]) -> float:
    """Columns stand in the middle."""
    own = count * (BOX_HEIGHT + GAP_DOWN) - GAP_DOWN
    return (_height(columns) - own) / 2 + row * (BOX_HEIGHT + GAP_DOWN)


def _edge(one: tuple[float, float], other: tuple[float, float]) -> str:
    x, y = one[0] + BOX_WIDTH, one[1] + BOX_HEIGHT / 2
    to_x, to_y = other[0], other[1] + BOX_HEIGHT / 2
    bend = min(GAP_ACROSS, (to_x - x) / 2)
    path = f"M{x:g} {y:g}C{x + bend:g} {y:g} {to_x - bend:g} {to_y:g} {to_x:g} {to_y:g}"
    return f'<path class="edge" d="{path}"/>'


def _box(name: str, place: tuple[float, float], shown: Shown) -> str:
    x, y = place
    label = name if len(name) <= LONGEST else f"{name[: LONGEST - 11]}…{name[-10:]}"
    return "".join(_parts(x, y, name, label, shown))


def _parts(x: float, y: float, name: str, label: str, shown: Shown) -> Iterator[str]:
    kind = shown.state.replace(" ", "-")
    yield f'<g class="box box-{escape(kind)}"><title>{escape(name)}: {escape(shown.state)}</title>'
    yield f'<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>'
    yield f'<text x="{x + 9:g}" y="{y + 17:g}">{escape(label)}</text>'
    yield f'<text class="small" x="{x + 9:g}" y="{y + 32:g}">{escape(shown.words)}</text></g>'
