"""Trackers as their users read them: the files and servers that each leaves, and what a broken one does not do."""

import socket
import time
import urllib.request
from pathlib import Path

import pytest

from tunemill.resources.trackers.client import TrackerProcess
from tunemill.resources.trackers.table import TRACKERS

FACTS = {"pipeline": "p", "node": "trained", "stage": "sft", "key": "abc"}
STEPS = {1: {"loss": 3.0}, 2: {"loss": 1.5, "eval_loss": 2.25}}


class Session:
    """One tracker's process, and what it has said."""

    def __init__(self, name, settings, folder, run_id=None):
        self.said, self.ids = [], []
        run = {
            "name": "p/trained",
            "settings": {"learning_rate": 0.001, "quantization": {"weight_dtype": "int8"}},
            "facts": FACTS,
            "folder": str(folder),
            "run_id": run_id,
        }
        self.process = TrackerProcess(name, settings, run, self.said.append, self.ids.append)

    def steps(self, steps=STEPS):
        for step, metrics in steps.items():
            self.process.send({"type": "step", "step": step, "metrics": metrics})

    def finish(self, succeeded=True, artifact=None, seconds=60.0):
        self.process.finish(succeeded, {"train_loss": 2.25}, artifact, seconds)

    def wait_for(self, what, seconds=60.0):
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.said
            time.sleep(0.05)


def figures_of_tensorboard(folder: Path, tag: str) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {event.step: event.value for event in found.Scalars(tag)}


def test_tensorboard_reads_the_figures_and_a_resumed_run_takes_back_what_was_lost(tmp_path):
    first = Session("tensorboard", {}, tmp_path)
    first.steps({**STEPS, 3: {"loss": 9.0}})
    first.finish(succeeded=False)
    (run_id,) = first.ids
    again = Session("tensorboard", {}, tmp_path, run_id)
    again.steps({3: {"loss": 1.0}})
    again.finish()
    assert again.ids == [run_id]
    assert figures_of_tensorboard(tmp_path / run_id, "train/loss") == {1: 3.0, 2: 1.5, 3: 1.0}
    assert figures_of_tensorboard(tmp_path / run_id, "eval/loss") == {2: 2.25}
    assert first.said == [f"TensorBoard: tensorboard --logdir {tmp_path}"]


@pytest.mark.slow
def test_mlflow_has_figures_settings_and_the_model_and_goes_on_with_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    uri = f"file:{tmp_path / 'mlruns'}"
    settings = {
        "mlflow_tracking_uri": uri, "mlflow_experiment_name": "e", "mlflow_run_name": "mine",
        "hf_mlflow_log_artifacts": True,
    }  # fmt: skip
    first = Session("mlflow", settings, tmp_path / "unused")
    first.steps()
    first.finish(succeeded=False)
    (run_id,) = first.ids
    client = MlflowClient(uri)
    assert client.get_run(run_id).info.status == "FAILED"
    again = Session("mlflow", settings, tmp_path / "unused", run_id)
    again.steps({3: {"loss": 1.0}})
    again.finish(artifact=str(model))
    assert again.ids == [run_id]
    history = client.get_metric_history(run_id, "train/loss")
    assert {item.step: item.value for item in history} == {1: 3.0, 2: 1.5, 3: 1.0}
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED" and found.info.run_name == "mine"
    assert found.data.params["quantization.weight_dtype"] == "int8"
    assert found.data.tags["tunemill.key"] == "abc" and found.data.tags["tunemill.train_loss"] == "2.25"
    assert [item.path for item in client.list_artifacts(run_id, "model")] == ["model/config.json"]


def records_of_wandb(file: Path):
    """The records of an offline run: a LevelDB log in blocks of 32 KiB behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        # A whole record, or the last part of one.
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def test_wandb_offline_keeps_the_figures_for_wandb_sync(tmp_path):
    session = Session("wandb", {"wandb_project": "q", "wandb_mode": "offline"}, tmp_path)
    session.steps()
    session.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert file.name == f"run-{session.ids[0]}.wandb"
    assert session.said == [f"Weights & Biases: wandb sync {file.parent}"]
    losses, runs, ended = {}, [], []
    for record in records_of_wandb(file):
        row = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        if "train/loss" in row:
            losses[record.history.step.num] = float(row["train/loss"])
        if record.HasField("run"):
            runs.append((record.run.project, record.run.display_name))
        if record.HasField("exit"):
            ended.append(record.exit.exit_code)
    assert losses == {1: 3.0, 2: 1.5}
    assert runs[0] == ("q", "p/trained") and ended == [0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_prometheus_can_scrape_while_the_training_runs(tmp_path):
    port = free_port()
    session = Session("otel", {"otel_metrics_host": "127.0.0.1", "otel_metrics_port": port}, tmp_path)
    session.steps()

    def scraped():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
                return page.read().decode()
        except OSError:
            return ""

    session.wait_for(lambda: "train_loss" in scraped() and "} 1.5" in scraped())
    assert 'pipeline="p"' in scraped() and "eval_loss" in scraped()
    session.finish()
    assert scraped() == ""


def test_a_tracker_that_fails_says_so_once_and_raises_nothing(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = {"otel_metrics_host": "127.0.0.1", "otel_metrics_port": taken.getsockname()[1]}
        session = Session("otel", settings, tmp_path)
        session.wait_for(lambda: session.said)
        session.steps()
        session.finish()
    (said,) = session.said
    assert said.startswith("OpenTelemetry failed: OSError") and "Address already in use" in said


@pytest.mark.slow
def test_a_tracker_that_hangs_is_left_behind_and_no_password_is_said(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://me:hunter2hunter2@127.0.0.1:{silent.getsockname()[1]}"
        session = Session("mlflow", {"mlflow_tracking_uri": uri}, tmp_path)
        session.steps()
        started = time.monotonic()
        session.finish(seconds=3.0)
        assert time.monotonic() - started < 30
    assert session.said == ["MLflow has not finished within 3 s; it was stopped"]
    assert session.process._process.returncode is not None


def test_a_tracker_that_takes_nothing_stops_no_training(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        session = Session("mlflow", {"mlflow_tracking_uri": uri}, tmp_path)
        for step in range(30_000):
            session.steps({step: {"loss": 1.0}})
        session.process.stop()
    assert session.said == [
        "MLflow takes no more figures; it was left alone, and the training goes on without it"
    ]


@pytest.mark.parametrize("name", TRACKERS)
def test_every_tracker_has_its_extra_and_its_module(name):
    import importlib
    import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert TRACKERS[name].extra in project["project"]["optional-dependencies"]
    assert importlib.import_module(f"tunemill.resources.trackers.{TRACKERS[name].module}").open_run
