"""What a person sees in a terminal while a run goes on, and when they cut it short."""

import io
import re
import sys
from itertools import pairwise

import pytest
from rich.console import Console
from support.terminal import Terminal, run_in_terminal

from tunemill.pipelines.run.activity import Activity, readable_seconds
from tunemill.pipelines.run.live_display import Frames
from tunemill.pipelines.run.progress import PlainLines

CLI = [sys.executable, "-m", "tunemill.pipelines.cli"]


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def drawn(width: int, *nodes: str) -> str:
    """A frame in which each node has done 240 of 48,000 steps, two in a second."""
    clock = Clock()
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    frames = Frames(console, clock)
    for node in nodes:
        frames(node, {"type": "start"})
        frames(node, {"type": "progress", "done": 120, "total": 48_000, "unit": "steps"})
    clock.now += 60.0
    for node in nodes:
        frames(node, {"type": "progress", "done": 240, "total": 48_000, "unit": "steps"})
        metrics = {"loss": 1.23456, "learning_rate": 0.0002, "tokens_per_second": 12345.6, "grad_norm": 0.4}
        frames(node, {"type": "step", "step": 240, "metrics": metrics})
    console.print(frames.frame())
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_frame_says_node_place_loss_and_time_left_on_one_line(width):
    line, second = drawn(width, "trained", "evaluation_of_a_model_with_a_long_name_of_its_own").splitlines()
    for words in ("trained", "240/48000 steps", "loss 1.235", "6:38:00 left"):
        assert words in line
    assert "evaluation_of" in second and "6:38:00 left" in second
    assert len(line.rstrip()) <= width and len(second.rstrip()) <= width
    # The other figures only where there is room for them.
    assert ("learning_rate" in line) == (width == 200)


def test_a_very_narrow_terminal_cuts_and_never_wraps():
    assert len(drawn(30, "trained", "evaluation_of_merged").splitlines()) == 2


def test_the_time_left_is_unknown_until_two_samples_and_follows_the_pace():
    activity = Activity("trained")
    activity.hear({"type": "progress", "done": 0, "total": 100, "unit": "steps"}, 0.0)
    assert activity.seconds_left(50.0) is None
    activity.hear({"type": "progress", "done": 10, "total": 100, "unit": "steps"}, 10.0)
    assert activity.seconds_left(10.0) == pytest.approx(90.0)
    assert activity.seconds_left(15.0) == pytest.approx(85.0)
    # A slow start is forgotten.
    for step in range(11, 60):
        activity.hear({"type": "progress", "done": step, "total": 100, "unit": "steps"}, step / 2 + 5)
    assert activity.seconds_left(59 / 2 + 5) == pytest.approx(41 / 2)


def test_the_pace_of_another_unit_is_not_carried_over():
    activity = Activity("tokenized")
    activity.hear({"type": "progress", "done": 0, "total": 10, "unit": "files"}, 0.0)
    activity.hear({"type": "progress", "done": 10, "total": 10, "unit": "files"}, 1.0)
    activity.hear({"type": "progress", "done": 0, "total": 10, "unit": "rows"}, 1.0)
    assert activity.seconds_left(1.0) is None and activity.place == "0/10 rows"


def test_a_log_gets_a_line_each_ten_seconds_with_place_figures_and_time_left():
    clock, file = Clock(), io.StringIO()
    lines = PlainLines(file, clock)
    for step in range(30):
        lines("trained", {"type": "step", "step": step, "metrics": {"loss": 2.5}})
        lines("trained", {"type": "progress", "done": step, "total": 100, "unit": "steps"})
        clock.now += 1.0
    said = file.getvalue().splitlines()
    assert len(said) == 3
    assert said[-1] == "trained: 19/100 steps; loss 2.5; 1:20 left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (59.6, "1:00"), (3599.7, "1:00:00"), (90061, "1 d 01:01"), (7.0, "0:07")],
)
def test_seconds_are_readable(seconds, text):
    assert readable_seconds(seconds) == text


def steps_done(terminal: Terminal) -> int:
    """The last step that the terminal has shown of 3,000."""
    return max((int(found) for found in re.findall(r"(\d+)/3000 steps", terminal.text)), default=0)


@pytest.mark.slow
def test_a_terminal_shows_a_step_alive_and_ctrl_c_says_from_where_it_goes_on(project):
    keys = ["--max_steps=3000", "--save_steps=40"]
    command = [*CLI, "run", str(project.yaml), "--state", str(project.state), *keys]
    seen = run_in_terminal(command, project.folder, 80, interrupt_when=lambda it: steps_done(it) > 100)
    assert seen.returncode == 130
    frames = [line for line in seen.lines if "/3000 steps" in line and "stopped" not in line]
    assert any("trained" in line and "loss" in line and line.endswith("left") for line in frames)
    assert max(len(line) for line in frames) <= 80
    at = seen.times("trained")
    gaps = sorted(later - earlier for earlier, later in pairwise(at))
    # Once a second at the least; one gap may be longer on a busy machine.
    assert gaps[-2] < 1.0
    assert "Traceback" not in seen.text
    said = seen.text[seen.text.index("interrupted") :]
    assert "nothing half-done was published" in said
    assert "trained was stopped at" in said and "the same command goes on from step" in said
