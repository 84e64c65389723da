"""Continued pretraining, with `type: completion` and `pretraining_dataset`, from texts to a model that stock libraries
load. That a killed run goes on is in test_resume.py.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.project import make_project, nodes_in_state
from support.rows import files_of, write_lines
from support.texts import WAYS, Way, alphabets, prepared
from support.tiny_model import Heard, folder_bytes, make_model, workspace
from support.variants import kept_in_ci
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunemill.stages.artifacts import Model, TrainingData
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

# Two texts in a sequence.
PACKED: dict[str, Any] = {"sample_packing": True, "sequence_len": 48}
SGD: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "max_grad_norm": 0}


@pytest.fixture
def base(tmp_path: Path) -> Model:
    return Model(make_model(tmp_path / "base"))


def train(folder: Path, base: Model, data: TrainingData, **settings: Any) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    config = SftConfig(**{"learning_rate": 1e-2, "logging_steps": 1, **PACKED, **settings})
    sft(config, base_model=base, training_data=data, evaluation_data=None, out=out, report=heard.report)
    return out.data, heard


def stock(folder: Path) -> Any:
    """The model as transformers loads it, with nothing new or left over."""
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    return model.eval()


def held_out_loss(folder: Path) -> float:
    """The loss of a stored model on texts that are none of those trained on."""
    words, model = AutoTokenizer.from_pretrained(folder), stock(folder)
    ids = torch.tensor([words(row["text"]).input_ids for row in alphabets(6, first=1)])
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss)


@pytest.mark.parametrize("way", ["pretraining", pytest.param("completion", marks=pytest.mark.slow)])
def test_it_learns_texts_and_stock_transformers_goes_on_with_one(
    tmp_path: Path, base: Model, way: Way
) -> None:
    settings = {"max_steps": 24, "micro_batch_size": 4}
    data = prepared(way, tmp_path / "texts", alphabets(200), **PACKED, **settings)
    folder, _ = train(tmp_path / "out", base, data, **settings)
    assert held_out_loss(folder) < 1 < 4 < held_out_loss(base.path)
    words = AutoTokenizer.from_pretrained(folder)
    written = stock(folder).generate(**words("MNOPQ", return_tensors="pt"), max_new_tokens=6, do_sample=False)
    assert words.decode(written[0]).startswith("MNOPQRSTUV")


@pytest.mark.slow
@pytest.mark.parametrize("way", kept_in_ci(WAYS, "pretraining"))
def test_one_by_eight_is_eight_by_one(tmp_path: Path, base: Model, way: Way) -> None:
    shapes = ({"micro_batch_size": 8}, {"gradient_accumulation_steps": 8})
    found = []
    for number, shape in enumerate(shapes):
        settings = {"max_steps": 4, **shape}
        data = prepared(way, tmp_path / f"texts{number}", alphabets(32), **PACKED, **settings)
        found.append((files_of(data), *train(tmp_path / f"out{number}", base, data, **SGD, **settings)))
    (rows, whole, one), (same_rows, cut, eight) = found
    assert rows == same_rows
    assert len(one.steps("loss")) == 4, "two epochs"
    assert eight.steps("loss") == pytest.approx(one.steps("loss"), abs=1e-5)
    expected, start = (load_file(path / "model.safetensors") for path in (whole, base.path))
    for name, tensor in load_file(cut / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-4)
        assert not torch.equal(tensor, start[name])


@pytest.mark.slow
@pytest.mark.parametrize("way", kept_in_ci(WAYS, "pretraining"))
def test_the_same_run_twice_is_the_same_bytes(tmp_path: Path, base: Model, way: Way) -> None:
    settings = {"max_steps": 5, "micro_batch_size": 2}
    found = []
    for number in range(2):
        torch.manual_seed(number)
        data = prepared(way, tmp_path / f"texts{number}", alphabets(16), **PACKED, **settings)
        found.append(
            (files_of(data), folder_bytes(train(tmp_path / f"out{number}", base, data, **settings)[0]))
        )
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_pipeline_trains_it(tmp_path: Path, way: Way) -> None:
    entry = {"path": "data/texts.jsonl"}
    data = {"datasets": [{**entry, "type": "completion"}]}
    if way == "pretraining":
        data = {"datasets": None, "pretraining_dataset": [entry]}
    project = make_project(
        tmp_path / "project", test_datasets=None, adapter=None, quantization=None, chat_template=None,
        eval_max_new_tokens=None, sequence_len=48, max_steps=30, micro_batch_size=2, learning_rate=0.01,
        **data,
    )  # fmt: skip
    write_lines(project.folder / "data" / "texts.jsonl", alphabets(60))
    nodes = project.run()
    assert nodes_in_state(nodes, "computed") == set(nodes)
    assert nodes["training_data"].stage == f"{'training' if way == 'completion' else way}_data"
    assert held_out_loss(nodes["trained"].published.data) < 2, "that of equal chances is 6"
    assert {item.state for item in project.plan().values()} == {"cached"}
