"""Plots are well-formed pictures, with what they show in the right places."""

import xml.etree.ElementTree as ElementTree

import pytest

from tunemill.pipelines.run.pictures import picture
from tunemill.stages.plot_svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, plot_svg, ticks

SVG = "{http://www.w3.org/2000/svg}"


def plot(x, y, *, bars=False, title="Row lengths"):
    return {"title": title, "x": x, "y": y, "x_label": "tokens", "y_label": "rows", "bars": bars}


def drawn(**event):
    return ElementTree.fromstring(plot_svg(event))  # noqa: S314  our own text


def test_bars_stand_on_the_axis_and_are_as_high_as_their_numbers():
    tree = drawn(**plot([0, 10, 20], [1, 4, 0], bars=True))
    bars = [
        {k: float(v) for k, v in bar.attrib.items() if k != "fill"} for bar in tree.findall(f"{SVG}rect")[1:]
    ]
    assert [bar["height"] for bar in bars] == pytest.approx(
        [(HEIGHT - TOP - BOTTOM) * share for share in (0.25, 1, 0)], abs=0.2
    )
    assert all(bar["y"] + bar["height"] == pytest.approx(HEIGHT - BOTTOM, abs=0.2) for bar in bars)
    assert bars[0]["x"] >= LEFT and bars[-1]["x"] + bars[-1]["width"] <= WIDTH - RIGHT


def test_a_line_goes_from_the_first_point_to_the_last():
    (line,) = drawn(**plot([1, 2, 3], [5.0, float("nan"), 1.0])).findall(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points == [(LEFT, TOP), (WIDTH - RIGHT, HEIGHT - BOTTOM)]


@pytest.mark.parametrize(
    ("x", "y"), [([], []), ([3], [7]), ([1, 2], [0, 0]), ([0, 1], [1e-9, 2e12]), ([1e20], [-1e30])]
)
@pytest.mark.parametrize("bars", [False, True])
def test_whatever_there_is_to_draw_is_drawn(x, y, bars):
    assert drawn(**plot(x, y, bars=bars)).tag == f"{SVG}svg"


def test_words_are_escaped():
    text = " ".join(
        node.text for node in drawn(**plot([1, 2], [1, 2], title="a < b & [c]")).findall(f"{SVG}text")
    )
    assert "a < b & [c]" in text and "tokens" in text and "rows" in text
    assert picture(plot_svg(plot([1], [1])), "[c](d)").startswith("![(c)(d)](data:image/svg+xml;base64,")


@pytest.mark.parametrize(("low", "high"), [(0, 7412), (-0.3, 0.4), (1e-6, 3e-6), (10, 11)])
def test_ticks_are_few_and_lie_between(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 8 and low <= found[0] and found[-1] <= high + 1e-12
