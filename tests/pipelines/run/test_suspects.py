"""A loss that is not finite names the file and the line of the rows that the step trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.project import Project, chat_row, make_project
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.run.suspects import origins
from tunemill.resources.folders import remove_tree

# A letter that no other row and no chat template has.
POISON = "Z"
NO_EVALUATION = dict.fromkeys(("test_datasets", "quantization", "eval_max_new_tokens"))


def poison(project: Project) -> None:
    """Weights in which one token's embedding is not a number."""
    folder = project.folder / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (token,) = tokenizer(POISON, add_special_tokens=False)["input_ids"]
    torch.manual_seed(0)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    config.pop("architectures")
    model = AutoModelForCausalLM.from_config(LlamaConfig(**config))
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = torch.inf
    model.save_pretrained(folder)


def pair(letter: str) -> str:
    question = [{"role": "user", "content": f"say {letter}"}]
    answers = {side: {"role": "assistant", "content": text} for side, text in
               (("chosen", letter), ("rejected", "no"))}  # fmt: skip
    return json.dumps({"messages": question, **answers}) + "\n"


def echo(letter: str) -> str:
    return chat_row(f"say {letter}", letter)


def failure(folder: Path, make_row: Any, **keys: Any) -> tuple[Project, str]:
    kind = "chat_template.default" if make_row is pair else "chat_template"
    datasets = [{"path": f"data/{name}.jsonl", "type": kind} for name in ("first", "second")]
    project = make_project(
        folder, datasets=datasets, reinit_weights=None, max_steps=None, num_epochs=2, logging_steps=1,
        **{**NO_EVALUATION, **keys},
    )  # fmt: skip
    poison(project)
    (folder / "data" / "first.jsonl").write_text("".join(map(make_row, "abcd")))
    # A blank line: the third line is the second row.
    rows = [*map(make_row, "e"), "\n", *map(make_row, f"{POISON}fgh")]
    (folder / "data" / "second.jsonl").write_text("".join(rows))
    return project, str(project.run()["trained"].message)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"sample_packing": False, "val_set_size": 2, "seed": 8, "dataset_exact_deduplication": True},
        pytest.param({"sample_packing": None, "rl": "orpo"}, marks=pytest.mark.slow),
    ],
    ids=["rows", "pairs"],
)
def test_a_poisoned_row_is_named(tmp_path: Path, keys: dict[str, Any]) -> None:
    _, message = failure(tmp_path / "project", pair if "rl" in keys else echo, **keys)
    assert "the loss is nan" in message
    assert message.endswith("This row comes from second.jsonl:3."), message


@pytest.mark.slow
def test_all_rows_of_a_sequence_are_named_as_the_files_are_now(tmp_path: Path) -> None:
    project, message = failure(tmp_path / "project", echo, sequence_len=256)
    assert message.endswith("These rows come from first.jsonl:1, 2, 3, 4; second.jsonl:1, 3, 4, 5, 6."), (
        message
    )
    # Another file with the same rows of tokens: training is asked for the same, and the lines are others.
    second = project.folder / "data" / "second.jsonl"
    second.write_text("\n\n" + second.read_text())
    finished = project.run()
    assert "second.jsonl:3, 5, 6, 7, 8" in str(finished["trained"].message)
    # What the rows were made from may be gone: then they are named as far as they can be.
    data, pipeline = finished["training_data"].published, load_pipeline(project.yaml)
    assert data is not None
    remove_tree(project.state / "artifacts" / "dataset")
    places = origins([0, 1, 2], pipeline.node("training_data"), data, pipeline, project.store)
    assert {(place.file, place.unit) for place in places} == {
        ("tokenized_first", "row"),
        ("tokenized_second", "row"),
    }
