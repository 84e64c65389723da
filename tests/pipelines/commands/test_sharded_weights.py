"""`tunemill merge-sharded-fsdp-weights`: checkpoints in parts become one file, and what is none is refused."""

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from support.tiny_model import folder_bytes, make_model
from transformers import AutoModelForCausalLM

from tunemill.pipelines.cli import main


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """What a training with FSDP leaves in its output_dir: the weights in parts, and the config."""
    folder = make_model(tmp_path / "out", dtype=torch.bfloat16)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    dcp.save({"model": weights}, checkpoint_id=folder / "pytorch_model_fsdp_0", no_dist=True)
    (tmp_path / "config.yml").write_text(f"output_dir: {folder}\nbase_model: x\n")
    torch.save(weights, tmp_path / "weights.pt")
    return tmp_path


@pytest.mark.slow
def test_parts_become_a_model(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file where a person works is not the module of its name.
    (trained / "random.py").write_text("raise RuntimeError")
    monkeypatch.chdir(trained)
    assert main(["merge-sharded-fsdp-weights", str(trained / "config.yml")]) == 0
    assert "written to" in capsys.readouterr().out
    merged = trained / "out" / "merged"
    found, expected = load_file(merged / "model.safetensors"), torch.load(trained / "weights.pt")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    AutoModelForCausalLM.from_pretrained(merged)
    beside = {path.name for path in (trained / "out").iterdir() if path.is_file()}
    assert {path.name for path in merged.iterdir()} == {"model.safetensors", *beside}


def test_what_is_there_is_not_overwritten(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # As a run leaves it: a link to an artifact.
    artifact = make_model(trained / "artifact")
    before = folder_bytes(artifact)
    (trained / "out" / "merged").symlink_to(artifact)
    assert main(["merge-sharded-fsdp-weights", str(trained / "config.yml")]) == 1
    assert "merged: there already; nothing is overwritten" in capsys.readouterr().err
    assert folder_bytes(artifact) == before


def test_what_is_no_such_checkpoint(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, parts = str(trained / "config.yml"), trained / "out" / "pytorch_model_fsdp_0"
    assert main(["merge-sharded-fsdp-weights", config, "--from", str(trained)]) == 1
    assert "no checkpoint that FSDP stored in parts" in capsys.readouterr().err
    next(parts.glob("*.distcp")).write_bytes(b"")
    assert main(["merge-sharded-fsdp-weights", config]) == 1
    told = capsys.readouterr().err
    assert "cannot be put together" in told and "CheckpointException" not in told and "Traceback" not in told
    (trained / "config.yml").write_text("base_model: x\n")
    assert main(["merge-sharded-fsdp-weights", config]) == 1
    assert "no output_dir" in capsys.readouterr().err
