"""Held-out rows that are trained on: found, named by file and line, and a gate where it is asked for."""

import json

import pytest
from support.preference_project import preference_project
from support.project import chat_row

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.cli import main
from tunemill.pipelines.commands.leaks import leakage_after, leakage_json
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.launcher import in_this_process

QUESTION = "how many apples are left when nine of twelve apples are eaten"
EXAM = [
    ("which of these numbers is the largest one of all of them", "seven"),
    (QUESTION, "three"),
    ("9 + 7", "16"),
]
LEAK = {
    "held_out": "held_out.jsonl:2",
    "trained": "echoes.jsonl:12",
    "share": 1.0,
    "text": f"{QUESTION} three",
}


@pytest.fixture
def leaking(fresh_project):
    """A project of which one held-out row is trained on, with other white space and inside of a longer row."""
    data = fresh_project.folder / "data"
    (data / "held_out.jsonl").write_text("".join(chat_row(*row) for row in EXAM))
    wrapped = QUESTION.replace(" ", "\n ")
    longer = " ".join(f"word{number}" for number in range(9))
    with (data / "echoes.jsonl").open("a") as file:
        file.write(chat_row("say z", "z"))
        file.write(chat_row(f"{longer} {wrapped}\n\nthree {longer}", "yes"))
    fresh_project.edit(sequence_len=1024)
    return fresh_project


def looked(project):
    """What is found in the project's data, as `--json` has it."""
    pipeline = load_pipeline(project.yaml).data()
    finished = run_pipeline(pipeline, project.store, launch=in_this_process)
    assert {item.state for item in finished} == {"computed"}
    return leakage_json(leakage_after(pipeline, finished, project.store))


def test_both_rows_are_named_by_file_and_line(leaking):
    (found,) = looked(leaking)
    assert (found["held_out_rows"], found["leaked_rows"], found["first"]) == (3, 1, [LEAK])


@pytest.mark.slow
def test_rows_that_val_set_size_holds_out_are_named_too(leaking):
    data = leaking.folder / "data"
    with (data / "sums.jsonl").open("a") as file:
        file.writelines([chat_row(QUESTION, "three")] * 8)
    leaking.edit(test_datasets=None, val_set_size=12, datasets=leaking.config()["datasets"][:1])
    (found,) = looked(leaking)
    lines = {leak["held_out"] for leak in found["first"]}
    assert found["leaked_rows"] == len(found["first"]) == len(lines) > 0
    same = {f"sums.jsonl:{number}" for number in range(21, 29)}
    assert lines <= same and {leak["trained"] for leak in found["first"]} <= same - lines


@pytest.mark.slow
def test_preprocess_warns(leaking, capsys):
    state = ["--state", str(leaking.state)]
    assert main(["preprocess", str(leaking.yaml), *state, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["leaks"][0]["first"] == [LEAK]
    assert main(["preprocess", str(leaking.yaml), *state]) == 0
    shown = capsys.readouterr().out
    assert "warning: 1 of 3 held-out rows are trained on:" in shown and "echoes.jsonl:12" in shown
    # Damage that leaves the size as it was is told as such.
    (leaks,) = leaking.state.glob("artifacts/leakage/*/data/leaks.jsonl")
    size = leaks.stat().st_size
    leaks.chmod(0o644)
    leaks.write_bytes(b"\xff" * size)
    assert main(["preprocess", str(leaking.yaml), *state]) == 1
    assert "leaks.jsonl:1: is no JSON" in capsys.readouterr().err


def test_nothing_is_looked_for_where_nobody_wants_it_and_no_other_key_moves(leaking):
    looked_at = leaking.plan()
    leaking.edit(pipeline={"leakage": False})
    assert set(looked_at) - set(leaking.plan()) == {"leakage"}
    leaking.edit(pipeline={"leakage": "sometimes"})
    with pytest.raises(ConfigError, match=r"pipeline\.leakage"):
        load_pipeline(leaking.yaml)
    leaking.edit(pipeline={"leakage": "fail"}, test_datasets=None)
    notes = [note.message for note in load_pipeline(leaking.yaml).notes]
    assert any("there are no held-out rows" in note for note in notes), notes


@pytest.mark.parametrize("state", ["passed", "failed"])
def test_as_a_gate_it_counts(project, capsys, state):
    project.edit(pipeline={"leakage": "fail"})
    if state == "failed":
        with (project.folder / "data" / "echoes.jsonl").open("a") as file:
            file.write(chat_row("0 + 7", "7"))
        pipeline = load_pipeline(project.yaml).data()
        run_pipeline(pipeline, project.store, launch=in_this_process)
    told = [str(project.yaml), "--state", str(project.state), "--json"]
    assert main(["run", *told, "--only", "leakage"]) == (state == "failed")
    document = json.loads(capsys.readouterr().out)
    (gate,) = document["gates"]
    assert (gate["gate"], gate["state"]) == ("no held-out row is trained on (leakage)", state)
    assert gate["text"] == f"{int(state == 'failed')} of 4 held-out rows are trained on"
    assert [leak["first"][0]["trained"] for leak in document["leaks"]] == (
        ["echoes.jsonl:11"] if state == "failed" else []
    )
    assert main(["plan", *told]) == 0
    assert [gate["state"] for gate in json.loads(capsys.readouterr().out)["gates"]] == [state]


LONG = "a long answer that nobody would write twice by chance in all the rows of a file"


def pair_line(question, chosen, rejected="never"):
    messages = [{"role": "user", "content": question}]
    answers = {"chosen": chosen, "rejected": rejected}
    said = {side: {"role": "assistant", "content": text} for side, text in answers.items()}
    return json.dumps({"messages": messages, **said}) + "\n"


def judged_line(question, answer, _rejected=None):
    return json.dumps({"prompt": question, "completion": answer, "label": True}) + "\n"


@pytest.mark.parametrize(
    ("rl", "line"),
    [
        pytest.param("dpo", pair_line, marks=pytest.mark.slow),
        pytest.param("kto", judged_line, marks=pytest.mark.exhaustive),
    ],
)
def test_pairs_leak_by_their_prompts_and_by_their_answers(tmp_path, rl, line):
    project = preference_project(tmp_path / "project", rl)
    with (project.folder / "data" / "rows.jsonl").open("a") as file:
        file.write(line("say x", "x and y"))
        file.write(line("tell me of it", f"before {LONG} after"))
    with (project.folder / "data" / "others.jsonl").open("a") as file:
        file.write(line("say something", LONG.replace(" ", "\n")))
        file.write(line("say a b c", "nobody"))
    (found,) = looked(project)
    assert (found["held_out_rows"], found["leaked_rows"]) == (6, 2)
    told = sorted((leak["held_out"], leak["trained"], leak["text"]) for leak in found["first"])
    assert told == [
        ("others.jsonl:2", "rows.jsonl:11", "say x"),
        ("others.jsonl:5", "rows.jsonl:12", LONG),
    ]


@pytest.mark.slow
def test_pairs_of_a_reward_model_leak_too_and_as_a_gate(tmp_path):
    project = preference_project(tmp_path / "project", "dpo", sequence_len=256)
    line = '{"chosen": [%s], "rejected": [%s]}\n'

    def turns(question, answer):
        return ", ".join(
            json.dumps({"role": role, "content": text})
            for role, text in (("user", question), ("assistant", answer))
        )

    def rows(*pairs):
        return "".join(line % (turns(q, "never"), turns(q, a)) for q, a in pairs)

    (project.folder / "data" / "rows.jsonl").write_text(rows(("say a", "a"), ("say b", LONG), ("say c", "c")))
    (project.folder / "data" / "others.jsonl").write_text(rows(("say d", "d"), ("say e", LONG)))
    entry = {"type": "bradley_terry.chat_template"}
    project.edit(
        rl=None, reward_model=True, datasets=[{"path": "data/rows.jsonl", **entry}],
        test_datasets=[{"path": "data/others.jsonl", **entry}], pipeline={"evaluate": [], "leakage": "fail"},
    )  # fmt: skip
    (found,) = looked(project)
    assert (found["held_out_rows"], found["leaked_rows"]) == (2, 1)
    assert found["first"][0]["trained"] == "rows.jsonl:2" and found["first"][0]["text"] == LONG


@pytest.mark.slow
def test_what_val_set_size_holds_out_of_pairs_is_looked_for_where_it_is_a_gate(tmp_path):
    project = preference_project(tmp_path / "project", "dpo", test_datasets=None, val_set_size=3)
    assert "leakage" not in project.plan()
    project.edit(pipeline={"evaluate": [], "leakage": "fail"})
    with (project.folder / "data" / "rows.jsonl").open("a") as file:
        file.writelines(pair_line("say a", f"a {number}") for number in range(20))
    (found,) = looked(project)
    assert found["leaked_rows"] >= 1 and {leak["text"] for leak in found["first"]} == {"say a"}
