"""`benchmarks/kernels/run.py` on a CPU with tiny shapes: it runs, its tables are complete, and failures show."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = ROOT / "kernels" / "functions"
KERNELS = {path.stem for path in FUNCTIONS.glob("*.py") if "\ndef reference(" in path.read_text()}


def run(root: Path, out: Path, *options: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/kernels/run.py", "--device", "cpu", "--smoke", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [*command, *options],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "kernels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_kernel_has_a_row_and_none_failed(tmp_path: Path) -> None:
    done = run(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    rows = rows_of(tmp_path)
    assert len(KERNELS) > 10
    assert {row["kernel"] for row in rows} == KERNELS | {"training_step"}
    markdown = (tmp_path / "kernels.md").read_text()
    assert "FAILED" not in markdown
    for kernel in KERNELS:
        assert f"\n| {kernel} | " in markdown
    assert "| 1B LoRA, checkpointing off | kernels on | " in markdown
    for row in rows:
        measured = row["forward_ms"] or row["both_ms"]
        assert measured or row["note"], row
        if row["way"] in ("tunemill", "eager"):
            assert measured and not row["note"], row
        if row["way"] == "tunemill" and row["kernel"] != "training_step":
            assert float(row["difference"]) < 0.02, row


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the repository's code, to break."""
    for folder in ("benchmarks", "kernels", "stages", "resources", "tunemill"):
        shutil.copytree(
            ROOT / folder,
            tmp_path / folder,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "results"),
        )
    return tmp_path


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        pytest.param(
            "raise RuntimeError('broken on purpose')",
            "FAILED: RuntimeError: broken on purpose",
            marks=pytest.mark.slow,
        ),
        pytest.param("import os; os._exit(7)", "FAILED: the process ended with 7", marks=pytest.mark.slow),
        pytest.param(
            "return 2 * reference(logits)",
            "FAILED: differs from the reference by 1, more than 0.02",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["raises", "kills the process", "is wrong"],
)
def test_a_kernel_that_fails_is_told_and_the_others_are_measured(
    checkout: Path, tmp_path: Path, broken: str, told: str
) -> None:
    source = checkout / "kernels" / "functions" / "entropy.py"
    text = source.read_text()
    place = "    if not runs_on(logits):\n"
    assert place in text
    source.write_text(text.replace(place, f"    {broken}\n{place}"))
    done = run(checkout, tmp_path / "out", "--only", "entropy", "swiglu")
    assert done.returncode == 1, done.stdout + done.stderr
    rows = {(row["kernel"], row["way"]): row for row in rows_of(tmp_path / "out")}
    assert rows["entropy", "tunemill"]["note"].startswith(told)
    for others in (("entropy", "eager"), ("swiglu", "tunemill"), ("swiglu", "torch.compile")):
        assert rows[others]["forward_ms"] and not rows[others]["note"]
    assert "entropy t=8 v=32 bf16 tunemill: FAILED" in done.stderr


@pytest.mark.slow
def test_the_gradients_do_not_depend_on_the_memory_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.kernels.kernel_unit import drawn_gradients

    rows, columns = torch.zeros(2, 3, 4), torch.zeros(2, 4, 3).transpose(1, 2)
    (of_rows,), (of_columns,) = drawn_gradients((rows,)), drawn_gradients((columns,))
    assert torch.equal(of_rows, of_columns)
    assert of_columns.stride() == columns.stride()


@pytest.mark.slow
def test_libraries_that_are_missing_are_told_and_nothing_fails(tmp_path: Path) -> None:
    for name in ("transformers", "peft", "bitsandbytes", "liger_kernel"):
        text = f"raise ModuleNotFoundError(name={name!r})\n"
        (tmp_path / f"{name}.py").write_text(text)
    kernels = ("nf4", "swiglu", "lora_linear", "training_step")
    done = run(ROOT, tmp_path / "out", "--only", *kernels, path=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    notes = {(row["kernel"], row["way"]): row["note"] for row in rows_of(tmp_path / "out")}
    assert notes["nf4", "bitsandbytes"] == "bitsandbytes not installed"
    assert notes["swiglu", "Liger"] == "liger_kernel not installed"
    assert notes["lora_linear", "PEFT"] == "peft not installed"
    assert notes["training_step", "tunemill"] == "transformers not installed"
    assert notes["lora_linear", "tunemill"] == ""


@pytest.mark.slow
def test_what_there_was_no_time_for_is_listed(tmp_path: Path) -> None:
    done = run(ROOT, tmp_path, "--only", "swiglu", "--minutes", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["note"] for row in rows_of(tmp_path)} == {"not run: out of time"}


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "benchmarks/kernels/run.py", "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "device: cuda, but torch finds no GPU; `--device cpu`" in done.stderr


def test_targets_are_checked_against_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.kernels.row import Row
    from benchmarks.kernels.targets import checked

    def row(kernel: str, way: str, shape: str = "s", **numbers: float | int) -> Row:
        return Row(kernel=kernel, shape=shape, dtype="bf16", way=way, **numbers)  # type: ignore[arg-type]

    large = "t=8192 h=2048 v=151936"
    rows = [
        # 900 of 1000 bytes/s forward, 800 of 1000 with backward: missed.
        row("swiglu", "tunemill", forward_bytes=9, forward_ms=10, both_bytes=24, both_ms=30),
        row("rope", "tunemill", forward_bytes=9, forward_ms=10, both_bytes=18, both_ms=20),
        row("linear_cross_entropy", "tunemill", large, both_ms=2.0, peak_mib=100.0),
        row("linear_cross_entropy", "eager", large, both_ms=9.0, peak_mib=1000.0),
        row("linear_cross_entropy", "Liger", large, both_ms=1.9, peak_mib=90.0),
        row("lora_mlp", "tunemill", both_ms=10.0),
        row("lora_mlp", "PEFT", both_ms=13.0),
        row("lora_mlp", "Liger", both_ms=11.0),
        row("training_step", "tunemill", "full", tokens_per_second=100.0),
        row("training_step", "eager", "full", tokens_per_second=90.0),
        row("training_step", "Liger", "full", tokens_per_second=101.0),
    ]
    found = {target.goal: (target.state, target.found) for target in checked(rows, 1000.0)}
    assert found["swiglu: 85% of the copy bandwidth"] == (
        "missed",
        "80% (both s bf16) to 90%; 1 of 2 reach it",
    )
    assert found["rope: 85% of the copy bandwidth"][0] == "met"
    assert found["rms_norm: 85% of the copy bandwidth"] == ("not measured", "")
    memory = "linear_cross_entropy at v=151936: at most a tenth of the naive peak memory"
    assert found[memory] == ("met", "1/10.0")
    faster = "linear_cross_entropy at v=151936: forward and backward faster than Liger"
    assert found[faster] == ("missed", "0.95 times")
    mlp = "lora_mlp: forward and backward"
    assert found[f"{mlp} 1.3 times as fast as PEFT"] == ("met", "1.30 times")
    assert found[f"{mlp} faster than Liger"] == ("met", "1.10 times")
    assert found[f"{mlp} faster than Axolotl"] == ("not measured", "")
    assert found["training step: ahead of every other row"] == ("missed", "full: 0.99 times Liger")


def test_losses_that_differ_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.kernels.losses import with_losses_compared
    from benchmarks.kernels.row import Row

    def row(way: str, first: float, last: float) -> Row:
        return Row(
            kernel="training_step", shape="full", dtype="bf16", way=way, first_loss=first, last_loss=last
        )

    rows = [row("eager", 10.0, 8.0), row("tunemill", 10.04, 8.3), row("Liger", 10.06, 8.0)]
    assert [one.note != "" for one in with_losses_compared(rows)] == [False, False, True]
    wrong = with_losses_compared([rows[0], row("tunemill", 10.0, float("nan"))])[1]
    assert wrong.note == "FAILED: losses 10.0000 and nan, without kernels 10.0000 and 8.0000"
