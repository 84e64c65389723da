"""`tunemill preprocess --debug`: rows of every kind of data, token by token, with what is done with each token."""

import json

import pytest
from support.project import make_project
from support.rows import write_lines

from tunemill.pipelines.cli import main

MORE = {"sample_packing": None, "test_datasets": None}
PAIRS = [
    {"question": f"{a} + {a}", "system": "Add.", "chosen": f"{2 * a}", "rejected": f"{a} or so"}
    for a in range(3)
]
KINDS = {
    "pairs": (
        {"rl": "orpo", "datasets": [{"path": "data/rows.jsonl", "type": "chatml.intel"}], **MORE},
        PAIRS,
    ),
    "judged": (
        {"rl": "kto", "datasets": [{"path": "data/rows.jsonl", "type": "chatml.intel"}], **MORE},
        [{"question": f"{a} + 1", "completion": f"{a + 1}", "label": a != 1} for a in range(3)],
    ),
    "reward": (
        {
            "reward_model": True,
            "datasets": [{"path": "data/rows.jsonl", "type": "bradley_terry.chat_template"}],
            **MORE,
        },
        [{"input": row["question"], **row} for row in PAIRS],
    ),
    "steps": (
        {
            "process_reward_model": True,
            "num_labels": 2,
            "datasets": [{"path": "data/rows.jsonl", "type": "stepwise_supervised"}],
            **MORE,
        },
        [{"prompt": "1 + 2", "completions": ["add", "so 3"], "labels": [True, False]}] * 3,
    ),
    "texts": (
        {
            "pretraining_dataset": [{"path": "data/rows.jsonl"}],
            "datasets": None,
            **MORE,
            "sample_packing": True,
        },
        [{"text": f"once upon a time {a}"} for a in range(40)],
    ),
}


@pytest.fixture
def shown(tmp_path, capsys):
    """A kind of data and arguments -> what `preprocess` printed."""

    def call(kind, *arguments):
        keys, rows = KINDS[kind]
        if not (tmp_path / "project").exists():
            write_lines(make_project(tmp_path / "project", **keys).folder / "data" / "rows.jsonl", rows)
        assert main(["preprocess", str(tmp_path / "project" / "pipeline.yml"), *arguments]) == 0
        return capsys.readouterr().out

    return call


def pieces(row):
    return [(piece["role"], piece["mark"], "".join(piece["tokens"])) for piece in row["pieces"]]


QUESTION = "<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\n1 + 1<|im_end|>\n<|im_start|>assistant\n"
EXPECTED = {
    "pairs": [
        ("prompt", "masked", QUESTION),
        ("chosen", "trained", "2<|im_end|>"),
        ("rejected", "trained", "1 or so<|im_end|>"),
    ],
    "judged": [
        ("prompt", "masked", "<|im_start|>user\n1 + 1<|im_end|>\n<|im_start|>assistant\n"),
        ("bad completion", "trained", "2<|im_end|>"),
    ],
    "reward": [
        ("prompt", "masked", QUESTION),
        ("chosen", "scored", "2<|im_end|>\n"),
        ("rejected", "scored", "1 or so<|im_end|>\n"),
    ],
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind == "pairs" else pytest.mark.exhaustive)
        for kind in EXPECTED
    ],
)
def test_the_second_row_of_preferences(kind, shown):
    rows = json.loads(shown(kind, "--debug-num-examples", "2", "--json"))["examples"]
    assert [(row["dataset"], row["source_row"]) for row in rows] == [("rows", 1), ("rows", 2)]
    assert pieces(rows[1]) == EXPECTED[kind]
    assert all(len(piece["tokens"]) > 1 for piece in rows[1]["pieces"]), "token by token"
    text = shown(kind, "--debug")
    assert text.count("rows, row ") == 3 and "rows, row 3:" in text
    for role, mark, said in EXPECTED[kind]:
        assert any(
            line.split()[: len(role.split()) + 1] == [*role.split(), mark]
            and line.endswith(said.replace("\n", "⏎"))
            for line in text.splitlines()
        )


@pytest.mark.slow
def test_steps_are_scored_at_their_ends(shown):
    (row,) = json.loads(shown("steps", "--debug-num-examples", "1", "--json"))["examples"]
    found = pieces(row)
    assert [(role, mark) for role, mark, _ in found if mark == "scored"] == [
        ("separator: 1", "scored"),
        ("separator: 0", "scored"),
    ]
    text = "".join(said for *_, said in found)
    assert text.index("1 + 2") < text.index("add") < text.index("so 3")


@pytest.mark.slow
def test_texts_are_trained_on(shown):
    (row,) = json.loads(shown("texts", "--debug-num-examples", "1", "--json"))["examples"]
    assert row["dataset"] == "training_data" and row["source_row"] == 1
    assert {mark for _, mark, _ in pieces(row)} == {"trained"}
    assert "once upon a time" in pieces(row)[0][2]
    assert "training_data, row 1:" in shown("texts", "--debug")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pairs", "texts"])
def test_texts_alone(kind, shown):
    rows = json.loads(shown(kind, "--debug-text-only", "--debug-num-examples", "1", "--json"))["examples"]
    assert len(rows) == 1 and all("tokens" not in piece for piece in rows[0]["pieces"])
    wanted = {"pairs": ["Add.", "0", "0 or so"], "texts": ["once upon a time"]}[kind]
    assert all(text in piece["text"] for text, piece in zip(wanted, rows[0]["pieces"], strict=False))
    assert "row 1:" in shown(kind, "--debug-text-only")


def test_without_debug_no_row_is_shown(shown):
    assert json.loads(shown("pairs", "--json"))["examples"] == []
    assert "row 1:" not in shown("pairs")


@pytest.mark.parametrize("count", ["-1", "many", "1.5"])
def test_a_number_of_rows_is_a_number(count, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["preprocess", str(tmp_path / "p.yml"), f"--debug-num-examples={count}"])
    assert "is no number of rows; give 0 or more" in capsys.readouterr().err
