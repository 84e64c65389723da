"""What stops a run says the step, the loss, the rows and what to turn; checkpoints stay."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_model import (
    Heard,
    folder_bytes,
    make_model,
    packs_of,
    random_rows,
    training_data,
    workspace,
)

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

SETTINGS: dict[str, Any] = {"learning_rate": 1e-2, "max_steps": 4, "save_steps": 1, "logging_steps": 1}


def run(folder: Path, base: Path, packs: Any = None, **settings: Any) -> Path:
    out = workspace(folder)
    data = training_data(folder / "rows", random_rows(8), packs)
    sft(SftConfig(**{**SETTINGS, **settings}), Model(base), data, None, out, Heard().report)
    return out.data


@pytest.mark.slow
def test_a_loss_that_stays_high_stops_the_run_and_keeps_checkpoints(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    with pytest.raises(UserError) as caught:
        run(tmp_path / "run", base, loss_watchdog_threshold=0.5, loss_watchdog_patience=2)
    text = str(caught.value)
    assert "steps 1 to 2 of 4" in text
    assert "loss_watchdog_threshold: 0.5" in text and "loss_watchdog_patience is 2" in text
    assert (tmp_path / "run/checkpoints/checkpoint-1/complete.json").exists()
    # A run that goes on from there counts the steps before it.
    with pytest.raises(UserError, match="steps 1 to 2 of 4"):
        run(tmp_path / "run", base, loss_watchdog_threshold=0.5, loss_watchdog_patience=2)


@pytest.mark.slow
def test_a_watched_run_that_goes_on_has_the_same_weights(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    watched = run(tmp_path / "watched", base, loss_watchdog_threshold=50.0, gc_steps=1)
    assert folder_bytes(watched) == folder_bytes(run(tmp_path / "plain", base))


def test_a_loss_that_is_no_number_names_step_and_rows(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    # The only rows with this token are those of the second sequence.
    rows = random_rows(8)
    token = next(
        t for t in rows[2][0] if all(t not in ids for n, (ids, _) in enumerate(rows) if n not in (2, 3))
    )
    weights["model.embed_tokens.weight"][token] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError) as caught:
        run(tmp_path / "run", base, packs_of(8, 2), sample_packing=True, sequence_len=24)
    text = str(caught.value)
    assert text.startswith("step 2 of 4: the loss is nan")
    assert f"rows 3, 4 of {tmp_path / 'run/rows/rows.arrow'}" in text


def test_patience_without_a_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="loss_watchdog_threshold"):
        SftConfig(**SETTINGS, loss_watchdog_patience=2)
