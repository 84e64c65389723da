"""The estimate of a teacher's pass against one whose allocations are counted."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.allocations import allocated
from support.teachers import make_teacher, taught
from support.tiny_model import Heard, random_rows, training_data, workspace

from tunemill.stages.errors import UserError
from tunemill.stages.memory import Above, Estimate, read_estimate, write_above
from tunemill.stages.training.teacher_estimate_body import estimate
from tunemill.stages.training.teacher_logprobs.config import TeacherLogprobsConfig

WIDE = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
HEADY = {"hidden_size": 32, "num_attention_heads": 2, "vocab_size": 8000, "max_position_embeddings": 128}


def estimated(folder: Path, given: dict[str, Above], **settings: Any) -> Estimate:
    out = workspace(folder)
    write_above(out.data, given)
    estimate(TeacherLogprobsConfig(**settings), out, Heard().report)
    return read_estimate(out.data)


@pytest.mark.parametrize("model", [WIDE, HEADY], ids=["weights", "logits"])
def test_within_five_percent_of_the_measured_peak(tmp_path: Path, model: dict[str, Any]) -> None:
    teacher = make_teacher(tmp_path / "teacher", **model)
    data = training_data(
        tmp_path / "data", [(row, row) for row, _ in random_rows(17, shortest=120, longest=120)]
    )
    found = estimated(tmp_path / "out", {"training_data": Above({}, str(data.path))}, teacher=str(teacher))
    weights = sum(one.nbytes for one in load_file(teacher / "model.safetensors").values())
    peak = weights + allocated(partial(taught, tmp_path / "said", teacher, data), tmp_path)
    assert found.weights == weights and (found.gradients, found.optimizer) == (0, 0) and not found.notes
    assert found.total == pytest.approx(peak, rel=0.05)


def test_what_is_not_here_is_asked_for_and_what_is_assumed_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pipeline\.teacher: it is not on this machine yet\. .*--only"):
        estimated(tmp_path / "none", {})
    with pytest.raises(UserError, match=r"pipeline\.teacher: .*no config\.json"):
        estimated(tmp_path / "empty", {}, teacher=str(tmp_path))
    teacher = Above({}, str(make_teacher(tmp_path / "teacher")))
    given = {"teacher_logprobs.teacher_model": teacher, "training_data": Above({"sequence_len": 64})}
    found = estimated(tmp_path / "out", given)
    assert found.logits > 0 and "every row is taken to have 64 tokens" in found.notes[0]
