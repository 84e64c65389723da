"""A Trainer of one's own: its loss is minimized, and order, micro batches and going on stay what they are."""

import re
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any

import pytest
import torch
from support.configs import ORPO, SFT, load, problems
from support.plugin_files import OTHER_TRAINER, TRAINER
from support.tiny_model import Heard, folder_bytes, make_model, random_rows, training_data, workspace
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Trainer

from tunemill.pipelines.graph.check_files import check_files
from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.report import Report
from tunemill.stages.training.keys.trainer_class import COMPUTE_LOSS
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

OWN = {"trainer_cls": "own_trainer.Weighs", "trainer_code": TRAINER}
ROWS = random_rows(4)


class StoppedError(Exception):
    """What stands for a killed process."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "base", hidden_size=16, intermediate_size=24)


def train(folder: Path, base: Path, report: Report | None = None, **settings: Any) -> Path:
    given = {"learning_rate": 1e-2, "optimizer": "sgd", "logging_steps": 1, "num_epochs": 1, **settings}
    out = workspace(folder)
    data = training_data(folder.parent / "rows", ROWS)
    sft(SftConfig(**given), Model(base), data, None, out, report or Heard().report)
    return out.data


def first_loss(base: Path) -> float:
    """The loss of all rows by hand: tokens with odd ids count twice, and the mean is over tokens."""
    model = AutoModelForCausalLM.from_pretrained(base)
    total, tokens = 0.0, 0
    for ids, labels in ROWS:
        targets = torch.tensor(labels[1:])
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1]
        losses = cross_entropy(logits, targets, ignore_index=-100, reduction="none")
        total += float((losses * (1 + targets % 2)).sum())
        tokens += int((targets != -100).sum())
    return total / tokens


@pytest.mark.parametrize("size", [1, 2, 4])
def test_its_loss_is_the_one_that_is_minimized_however_a_step_is_cut(
    tmp_path: Path, base: Path, size: int
) -> None:
    heard = Heard()
    batches = {"micro_batch_size": size, "gradient_accumulation_steps": 4 // size}
    train(tmp_path / "out", base, heard.report, **OWN, **batches)
    assert heard.steps("loss")[1] == pytest.approx(first_loss(base), rel=1e-5)


@pytest.mark.slow
def test_with_a_trainer_goes_on_exactly(tmp_path: Path, base: Path) -> None:
    settings = {**OWN, "optimizer": "adamw_torch_fused", "save_steps": 3, "num_epochs": 2}

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(tmp_path / "resumed", base, Report(interrupt), **settings)
    heard = Heard()
    found = train(tmp_path / "resumed", base, heard.report, **settings)
    assert min(heard.steps("loss")) == 4
    assert folder_bytes(found) == folder_bytes(train(tmp_path / "whole", base, **settings))


def test_super_is_the_loss_of_the_loop(tmp_path: Path, base: Path) -> None:
    plain, tripled = Heard(), Heard()
    train(tmp_path / "plain", base, plain.report)
    train(tmp_path / "tripled", base, tripled.report, **{**OWN, "trainer_code": OTHER_TRAINER})
    assert tripled.steps("loss")[1] == pytest.approx(3 * plain.steps("loss")[1], rel=1e-6)


def test_the_number_of_tokens_may_come_among_the_others(tmp_path: Path, base: Path) -> None:
    plain, named = Heard(), Heard()
    train(tmp_path / "plain", base, plain.report)
    method = "compute_loss(self, model, inputs, return_outputs=False, **kwargs)"
    body = "return super().compute_loss(model, inputs, return_outputs, **kwargs)"
    train(tmp_path / "named", base, named.report, **written(tmp_path, method, body))
    assert named.steps("loss") == plain.steps("loss")


CLASS = """from transformers import Trainer
class Mine({base}):
    def {method}:
        {body}
"""


def written(folder: Path, method: str, body: str = "pass", base: str = "Trainer") -> dict[str, Any]:
    file = folder / "mine.py"
    file.write_text(CLASS.format(method=method, body=body, base=base))
    return {"trainer_cls": "mine.Mine", "trainer_code": [str(file)]}


@pytest.mark.parametrize(
    ("method", "body", "parent", "said"),
    [
        ("_get_train_sampler(self, rows=None)", "pass", "Trainer", "overrides _get_train_sampler; a class"),
        ("__init__(self, **given)", "pass", "Trainer", "overrides __init__"),
        ("_save(self, *given)", "pass", "Trainer", "overrides _save.* it belongs to the loop"),
        ("compute_loss(self, *given, **named)", "pass", "dict", "must inherit from transformers' Trainer"),
        ("compute_loss(self, model, inputs)", "pass", "Trainer", r"compute_loss\(self, model, inputs\) cannot be"),
        ("log(self, logs)", "pass", "Trainer", r"cannot be called with \(self, logs, start_time\)"),
        ("compute_loss(self, *given, **named)", "1 / 0", "Trainer", "Mine.compute_loss raised ZeroDiv.*line 4"),
    ],
)  # fmt: skip
def test_what_it_may_not_do_is_told(
    tmp_path: Path, base: Path, method: str, body: str, parent: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        train(tmp_path / "out", base, **written(tmp_path, method, body, parent))


@pytest.mark.parametrize(
    ("method", "parent", "said"),
    [
        (
            "create_optimizer(self)",
            "Trainer",
            "line 3: overrides create_optimizer.*a plugin has a hook of this name",
        ),
        ("compute_loss(self)", "", "must inherit from transformers' Trainer"),
        (
            "compute_loss(self, model, inputs, return_outputs=False)",
            "Trainer",
            r"line 3: compute_loss\(self, model, inputs, return_outputs\) cannot be called with .*num_items_in_batch\)",
        ),
    ],
)
def test_check_reads_what_it_is(tmp_path: Path, method: str, parent: str, said: str) -> None:
    config = {**SFT, "trainer_cls": written(tmp_path, method, base=parent)["trainer_cls"]}
    load(tmp_path, config)
    (checked,) = check_files([tmp_path / "x.yml"], [])
    (message,) = [problem.message for problem in checked.problems if problem.path == "trainer_cls"]
    assert re.search(said, message), message


def test_check_knows_how_the_loss_of_transformers_is_called() -> None:
    plain = [
        one.replace(annotation=Parameter.empty) for one in signature(Trainer.compute_loss).parameters.values()
    ]
    assert Signature(plain) == COMPUTE_LOSS


def test_only_beside_the_yaml_and_only_where_the_model_computes_the_loss(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, {**SFT, "trainer_cls": "trl.SFTTrainer"})
    assert problem.path == "trainer_cls" and "there is no trl.py beside the YAML" in problem.message
    written(tmp_path, "compute_loss(self)")
    (problem,) = problems(tmp_path, {**ORPO, "trainer_cls": "mine.Mine"})
    assert problem.kind == "unread" and "this pipeline trains orpo" in problem.message


def test_it_is_no_loss_of_the_kernels(tmp_path: Path) -> None:
    found = SftConfig(learning_rate=1, **written(tmp_path, "compute_loss(self)"))
    assert "linear_cross_entropy" not in found.kernel_choice.sources
    assert "linear_cross_entropy" in SftConfig(learning_rate=1).kernel_choice.sources
