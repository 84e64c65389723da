"""`benchmarks/methods.py`, `training.py` and `grpo.py` with few steps: they run, and both sides do the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def rows_of(script: str, page: Path, *options: str) -> list[dict[str, str]]:
    """The table that a script writes: column -> text of each row."""
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}", *options, "--markdown", str(page)],
        cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    columns, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.read_text().splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(columns, row, strict=True)) for row in rows]


@pytest.mark.slow
def test_every_side_of_a_method_has_a_row_and_the_same_losses(tmp_path: Path) -> None:
    rows = rows_of("methods.py", tmp_path / "methods.md", "--quick", "--only", "dpo", "reward")
    assert [(row["training"], row["by"]) for row in rows] == [
        ("dpo", "Tunemill, the stage reference_logprobs"),
        ("dpo", "Tunemill"),
        ("dpo", "Tunemill, reference beside each step"),
        ("dpo", "TRL, precompute_ref_log_probs"),
        ("dpo", "TRL"),
        ("reward", "Tunemill"),
        ("reward", "TRL"),
    ]
    assert all(float(row["steps/s"]) > 0 for row in rows[1:])
    # The third step's: before the first all losses of DPO are ln 2, whatever the rows are.
    assert {row["last loss"] for row in rows[1:5]} != {"0.6931"}
    for method in ("dpo", "reward"):
        losses = [float(row["last loss"]) for row in rows if row["training"] == method and row["last loss"]]
        assert losses == pytest.approx([losses[0]] * len(losses), abs=2e-4)


@pytest.mark.slow
def test_supervised_training_has_a_row_for_each_side(tmp_path: Path) -> None:
    rows = rows_of("training.py", tmp_path / "training.md", "--steps", "2", "--repeats", "1")
    sides = [(kind, by) for kind in ("full", "LoRA") for by in ("Tunemill", "TRL SFTTrainer")]
    assert [(row["training"], row["by"]) for row in rows] == sides


@pytest.mark.slow
@pytest.mark.exhaustive
def test_learning_from_samples_has_a_row_for_each_side(tmp_path: Path) -> None:
    rows = rows_of("grpo.py", tmp_path / "grpo.md", "--quick")
    assert [row["by"] for row in rows] == ["Tunemill", "TRL"]
    assert all(float(row[name]) > 0 for row in rows for name in ("sampled tokens/s", "trained tokens/s"))
    # Both are paid by the same reward, of completions of the same model.
    first = [float(row["reward at first"]) for row in rows]
    assert first[0] == pytest.approx(first[1], abs=0.25)
