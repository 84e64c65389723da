"""What is kept beside a result: every figure as JSON lines, a trace; and MLPs in tiles compute the same."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_model import (
    Heard,
    evaluation_data,
    folder_bytes,
    make_model,
    random_rows,
    training_data,
    workspace,
)
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig
from tunemill.stages.training.tiled_body import tile_mlps

SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-2, "max_steps": 4, "save_steps": 1, "eval_steps": 2, "logging_steps": 2,
}  # fmt: skip


class StoppedError(Exception):
    pass


def run(folder: Path, base: Path, stop_at: int | None = None, **settings: Any) -> Heard:
    heard = Heard()

    def emit(event: dict[str, Any]) -> None:
        heard.events.append(event)
        if event["type"] == "step" and event["step"] == stop_at:
            raise StoppedError

    sft(
        SftConfig(**{**SETTINGS, **settings}),
        Model(base),
        training_data(folder / "rows", random_rows(8)),
        evaluation_data(folder / "held_out", random_rows(3, seed=1)),
        workspace(folder),
        Report(emit),
    )
    return heard


@pytest.mark.slow
def test_every_figure_of_every_step_is_a_line(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    run(tmp_path / "whole", base)
    text = (tmp_path / "whole/logs/metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "eval_loss" in line] == [2, 4]
    assert all({"loss", "grad_norm", "learning_rate"} <= line.keys() for line in lines if "loss" in line)
    # A run that was interrupted has them all too, and in its plot every evaluation.
    with pytest.raises(StoppedError):
        run(tmp_path / "killed", base, stop_at=4)
    heard = run(tmp_path / "killed", base)
    assert (tmp_path / "killed/logs/metrics.jsonl").read_text() == text
    plot = next(event for event in heard.of("plot") if event["title"] == "Held-out loss")
    assert plot["x"] == [2, 4]


@pytest.mark.slow
def test_a_trace_changes_no_weight_and_holds_the_steps(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    run(tmp_path / "plain", base)
    run(tmp_path / "traced", base, profiler_steps=1, profiler_steps_start=1)
    assert folder_bytes(tmp_path / "traced/data") == folder_bytes(tmp_path / "plain/data")
    with gzip.open(tmp_path / "traced/logs/profile.json.gz") as file:
        names = {event.get("name", "") for event in json.load(file)["traceEvents"]}
    assert "aten::embedding" in names


@pytest.mark.parametrize("tiles", [None, 3])
def test_tiles_give_the_same_loss_and_gradients(tmp_path: Path, tiles: int | None) -> None:
    base = make_model(tmp_path / "base", hidden_size=16)
    model = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.arange(3, 43)[None]
    names = list(dict(model.named_parameters()))

    def gradients() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]

    loss, expected = gradients()
    seen: list[int] = []
    tiled = tile_mlps(model, tiles, Heard().report)
    model.model.layers[0].mlp.down_proj.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].shape[-2])
    )
    found_loss, found = gradients()
    # 40 tokens over a width of 16 are 3 tiles; each runs twice.
    assert sorted(seen) == [13] * 4 + [14] * 2
    assert list(dict(model.named_parameters())) == names
    torch.testing.assert_close(found_loss, loss)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    tiled.undo()
    assert torch.equal(gradients()[0], loss)


def test_a_model_without_such_mlps_is_refused() -> None:
    with pytest.raises(SettingError, match="tiled_mlp"):
        tile_mlps(torch.nn.Sequential(torch.nn.Linear(2, 2)), None, Heard().report)


@pytest.mark.slow
def test_tiles_train_with_an_adapter_and_recomputation(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    adapter = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}
    plain = run(tmp_path / "plain", base, **adapter)
    tiled = run(
        tmp_path / "tiled",
        base,
        **adapter,
        tiled_mlp=True,
        tiled_mlp_num_shards=2,
        gradient_checkpointing=True,
    )
    assert tiled.steps("loss") == pytest.approx(plain.steps("loss"), rel=1e-4)
    assert set(folder_bytes(tmp_path / "tiled/data")) == set(folder_bytes(tmp_path / "plain/data"))


@pytest.mark.slow
def test_samples_are_shown_and_change_no_weight(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    run(tmp_path / "plain", base)
    heard = run(tmp_path / "sampled", base, generate_samples=True, num_generation_samples=2)
    assert folder_bytes(tmp_path / "sampled/data") == folder_bytes(tmp_path / "plain/data")
    texts = [event["message"] for event in heard.of("log") if "sample of row" in event["message"]]
    assert [text.split(":")[0] for text in texts] == ["sample of row 1", "sample of row 2"] * 2
    tables = heard.of("table")
    assert [table["title"] for table in tables] == ["What the model writes"] * 2
    assert [row[0] for row in tables[-1]["rows"]] == [1, 2] and tables[-1]["columns"] == [
        "row",
        "given",
        "written",
    ]
