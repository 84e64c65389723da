"""Trackers in a pipeline: they hear of trainings, change no result, and can fail or be switched off alone."""

import pytest
from support.project import nodes_in_state

from tunemill.pipelines.assets.trackers import Trackers
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.trackers.table import TRACKERS

SAYS = "use_tensorboard=true"


def tensorboard_losses(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = folder.iterdir()
    found = EventAccumulator(str(run)).Reload()
    return [(event.step, round(event.value, 3)) for event in found.Scalars("train/loss")]


def test_a_training_is_tracked_once_and_no_result_depends_on_it(project):
    assert nodes_in_state(project.plan(SAYS), "run") == set(), "a tracker runs nothing again"
    said = []
    finished = project.run(
        SAYS, "learning_rate=0.002", observe=lambda node, event: said.append((node, event.get("message")))
    )
    folder = project.folder / "outputs" / "runs" / "tensorboard"
    losses = tensorboard_losses(folder)
    assert [step for step, _ in losses] == [1, 2, 3, 4] and all(value > 0 for _, value in losses)
    assert finished["trained"].state == "computed"
    assert ("trained", f"TensorBoard: tensorboard --logdir {folder}") in said
    assert {node for node, message in said if message and "TensorBoard" in message} == {"trained"}
    project.run(SAYS, "learning_rate=0.002")
    assert len(list(folder.iterdir())) == 1, "what is cached is not tracked again"
    assert not list((project.state / "trackers" / "unfinished").iterdir())


@pytest.mark.slow
def test_a_tracker_that_fails_leaves_the_training_alone(project):
    said = []
    finished = project.run(
        "use_mlflow=true", "mlflow_tracking_uri=nonsense://x", "learning_rate=0.003",
        observe=lambda _, event: said.append(event.get("message") or ""),
    )  # fmt: skip
    assert finished["trained"].state == "computed"
    (line,) = [line for line in said if line.startswith("MLflow")]
    assert "MLflow failed: " in line and "The training is not touched by that" in line


def test_a_deployment_can_switch_trackers_off(project):
    pipeline = load_pipeline(project.yaml, [SAYS])
    trained, merged = pipeline.node("trained"), pipeline.node("merged")
    for trackers, node, tracked in (
        (Trackers(), trained, True),
        (Trackers(), merged, False),
        (Trackers(enabled=False), trained, False),
    ):
        with trackers.watch(pipeline, node, project.state, print) as found:
            assert (found is not None) == tracked


@pytest.mark.skipif(TRACKERS["comet"].is_installed, reason="shows what is said where it is not installed")
def test_a_tracker_that_is_not_installed_is_a_note_until_something_is_trained(project):
    comet = ("use_comet=true", "comet_online=false")
    (note,) = [note for note in load_pipeline(project.yaml, comet).notes if note.kind == "elsewhere"]
    assert "tunemill[comet]" in note.message
    assert nodes_in_state(project.run(*comet), "computed") == set()
    with pytest.raises(ConfigError, match=r"tunemill\[comet\]"):
        project.run(*comet, "learning_rate=0.004")
