"""Only what an assistant says is asked for, whatever else is trained on."""

from pathlib import Path

import pytest
from support.evaluated import run
from support.parrot import ids_of, make_parrot
from support.rows import read_arrow, run_stage, write_lines
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoTokenizer

from tunemill.stages.artifacts import EvaluationData
from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.evaluation_data.config import EvaluationDataConfig
from tunemill.stages.data.evaluation_data.stage import EVALUATION_DATA
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.stage import TOKENIZED
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.data.training_data.config import TrainingDataConfig
from tunemill.stages.data.training_data.stage import TRAINING_DATA
from tunemill.stages.evaluation.questions import last_answer, question_of

CHAT = [
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": "Paris"},
    {"role": "user", "content": "Really?"},
]
CRITIC = [*CHAT, {"role": "critic", "content": "Write more"}, CHAT[0]]
TOOL = [*CHAT[:2], {"role": "tool", "content": "the date"}]
INSTRUCTION = {"instruction": "Write the date", "input": "", "output": "1998-03-03"}


def prepared(folder: Path, row: dict, held_out: bool, limit: int = 512, **settings) -> EvaluationData:
    """The row as evaluation data, of test_datasets or of what val_set_size holds out."""
    folder.mkdir()
    tokenizer, _ = run_stage(
        TOKENIZER, TokenizerConfig(base_model=str(make_tokenizer(folder / "base"))), folder / "tokenizer",
        upstream=None,
    )  # fmt: skip
    source = write_lines(folder / "rows.jsonl", [row, row])
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source)), folder / "dataset")
    config = TokenizedConfig(**{"type": "chat_template", "path": str(source), **settings})
    rows, _ = run_stage(TOKENIZED, config, folder / "tokenized", dataset=dataset, tokenizer=tokenizer)
    lengths = {"sequence_len": limit, "excess_length_strategy": "truncate"}
    inputs = {"tokenized": [rows], "training_data": None}
    if held_out:
        training = TrainingDataConfig(**lengths, val_set_size=0.5)
        trained, _ = run_stage(TRAINING_DATA, training, folder / "training", tokenized=[rows])
        inputs = {"tokenized": None, "training_data": trained}
    return run_stage(EVALUATION_DATA, EvaluationDataConfig(**lengths), folder / "evaluation", **inputs)[0]


def asked(data: EvaluationData, folder: Path) -> tuple[str, str] | None:
    """Prompt and reference of the first row, as text."""
    words = AutoTokenizer.from_pretrained(make_tokenizer(folder / "words"))
    found = question_of(Rows(data.rows), 0, frozenset({2}), frozenset({0, 1, 2}))
    return found and (words.decode(found.prompt), words.decode(found.reference))


CASES = {
    "the user's end": (CHAT, {"train_on_eos": "all"}, "Paris"),
    "the user": (CHAT, {"train_on_inputs": True}, "Paris"),
    "user in roles_to_train": (CHAT, {"roles_to_train": ["user", "assistant"]}, "Paris"),
    "the tool": (TOOL, {"train_on_inputs": True}, "Paris"),
    "a role of its own": (CRITIC, {"roles_to_train": ["critic"], "train_on_eos": "all"}, "Write more"),
    "assistants first": (CRITIC, {"roles_to_train": ["critic", "assistant"]}, "Paris"),
    "nobody": (CHAT, {"roles_to_train": ["user"], "train_on_eos": "all"}, None),
}


@pytest.mark.parametrize("held_out", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_the_question_is_an_assistants(tmp_path: Path, case: str, held_out: bool) -> None:
    messages, settings, answer = CASES[case]
    question = asked(prepared(tmp_path / "data", {"messages": messages}, held_out, **settings), tmp_path)
    if answer is None:
        assert question is None
    else:
        assert question is not None and question[1] == answer + "<|im_end|>"
        role = "critic" if answer == "Write more" else "assistant"
        assert question[0].endswith(f"<|im_start|>{role}\n")


def test_of_instructions_the_response_is_asked_for(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", INSTRUCTION, False, type="alpaca", train_on_inputs=True)
    question = asked(data, tmp_path)
    assert question is not None and question[1] == "1998-03-03<|im_end|>"
    assert question[0].endswith("### Response:\n")


@pytest.mark.parametrize("held_out", [False, True])
def test_roles_stay_with_rows_that_are_cut(tmp_path: Path, held_out: bool) -> None:
    whole = read_arrow(prepared(tmp_path / "a", {"messages": CHAT}, held_out).rows)[0]
    assert whole["roles"] == ["user", "assistant", "user"]
    assert whole["role_ends"][-1] == len(whole["input_ids"])
    limit = whole["role_ends"][0] + 2
    cut = prepared(tmp_path / "b", {"messages": CHAT}, held_out, limit=limit, train_on_inputs=True)
    row = read_arrow(cut.rows)[0]
    assert (row["roles"], row["role_ends"]) == (["user", "assistant"], [whole["role_ends"][0], limit])


def test_roles_stay_with_the_pieces_of_a_row(tmp_path: Path) -> None:
    row = {"text": "the capital of France is Paris"}
    data = prepared(tmp_path / "data", row, False, limit=4, type="completion")
    rows = [row for row in read_arrow(data.rows) if row["input_ids"]]
    assert len(rows) > 2
    assert all((row["roles"], row["role_ends"]) == (["text"], [len(row["input_ids"])]) for row in rows)


def test_the_figure_is_that_of_the_assistants_answer(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", {"messages": CHAT}, True, train_on_eos="all")
    # Behind everything comes an end token: that is no answer but to a question whose answer is one.
    model = make_parrot(tmp_path / "model", dict.fromkeys(range(3, 398), 2))
    metrics, (prediction,), _ = run(tmp_path / "out", model, data)
    assert metrics["answers"] == 1 and metrics["exact_match"] == 0.0
    assert (prediction["reference"], prediction["prediction"]) == ("Paris", "")
    assert ids_of(model, prediction["prompt"])[-1] == ids_of(model, "\n")[0]


@pytest.mark.parametrize(
    ("ids", "labels", "span"),
    [
        ([5, 6, 3, 4, 5], [-100, -100, 3, 4, -100], (2, 4)),
        ([1, 5, 3, 4], [1, -100, 3, 4], (2, 4)),
        ([1, 2], [1, 2], (0, 2)),
        ([4, 2, 5, 2], [4, -100, -100, 2], (0, 1)),
        ([4, 3, 2, 5, 2], [-100, 3, 2, -100, 2], (1, 3)),
        ([5, 2], [-100, 2], None),
        ([5], [-100], None),
        ([], [], None),
    ],
)
def test_the_last_answer(ids: list[int], labels: list[int], span: tuple[int, int] | None) -> None:
    assert last_answer(ids, labels, frozenset({2})) == span
