"""`rl: ebft` from a YAML to a merged model; and what `check` refuses and notes."""

import json

import pyarrow as pa
import pytest
from support.online import prompt_data
from support.preference_project import UNREAD
from support.project import make_project
from support.tiny_tokenizer import make_tokenizer

from tunemill.pipelines.graph.load import load_pipeline
from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.errors import RowError
from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.ebft.answers_body import answers_of
from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.online.engine import Completion


def project_of(folder, trl=None, ebft=None, **keys):
    project = make_project(
        folder,
        **{
            **UNREAD,
            "rl": "ebft",
            "ebft": {"feature_layers": [0.5, 1.0], "ce_coef": 0.03, **(ebft or {})},
            "trl": {"num_generations": 2, "max_completion_length": 4, **(trl or {})},
            "datasets": [
                {"path": "data/asked.jsonl", "type": "ebft_opencode.transform"},
                {"path": "data/talks.jsonl", "type": "ebft_chat_multiturn.transform_all_turns"},
            ],
            "test_datasets": None,
            "quantization": None,
            "micro_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "max_steps": 2,
            **keys,
        },
    )
    rows = [{"input": f"say {c}", "output": c, "id": 1} for c in "abc"]
    talk = [{"role": role, "content": c} for role, c in zip(("user", "assistant") * 2, "wxyz", strict=True)]
    for name, lines in (("asked", rows), ("talks", [{"messages": talk}])):
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / "data" / f"{name}.jsonl").write_text(text)
    return project


@pytest.mark.slow
def test_from_a_yaml_to_a_merged_model_with_its_rollouts(tmp_path):
    project = project_of(tmp_path / "project")
    nodes = project.run()
    assert {item.state for item in nodes.values()} == {"computed"}
    assert nodes["trained"].stage == "ebft" and nodes["tokenized_asked"].stage == "prompts"
    folder = nodes["trained"].published.folder
    table = pa.ipc.open_file(pa.memory_map(str(folder / "logs" / "rollouts.arrow"))).read_all()
    rows = table.to_pylist()
    assert len(rows) == 8 and json.loads(table.schema.metadata[b"rewards"]) == {
        "names": ["alignment", "diversity"],
        "weights": [2.0, -2.0],
        "steps": 1,
    }
    for row in rows:
        assert row["reward"] == pytest.approx(2 * row["rewards"][0] - 2 * row["rewards"][1])
        assert set(json.loads(row["columns"])) == {"ground_truth"}
    answers = {row["prompt"]: json.loads(row["columns"])["ground_truth"] for row in rows}
    said = {("say a", "a"), ("say b", "b"), ("say c", "c"), ("w", "x"), ("y", "z")}
    assert {(json.loads(prompt)[-1]["content"], answer) for prompt, answer in answers.items()} <= said
    assert {item.state for item in project.plan().values()} == {"cached"}
    stale = {name for name, item in project.plan("ebft.alignment_coef=2").items() if item.state != "cached"}
    assert stale == {"trained", "merged"}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trl.reward_funcs=[./scorer]", "asks nothing else"),
        ("trl.multi_objective_aggregation=normalize_then_sum", "Remove it"),
        ("ebft.mode=blocks", "strided"),
        ("ebft={alignment_coef: 0, diversity_coef: 0}", "nothing is learned where"),
        ("ebft.feature_layers=[1.5]", "share of the model's depth"),
        ("ebft.embed_method=first_token", "last_token"),
        ("datasets.0.type=ebft_strided_chat.transform", "transform_all_turns"),
        ("datasets.0.type=ebft_chat_multiturn.transform", "transform_all_turns"),
        ("datasets.0.type=ebft_pretrain.transform", "or rl: ebft with ebft.mode: strided"),
        ("trl.num_generations=3", "do not divide the 4"),
    ],
)
def test_what_check_refuses(tmp_path, override, said):
    with pytest.raises(Exception) as caught:
        load_pipeline(project_of(tmp_path / "project").yaml, [override])
    assert said in str(caught.value)


def test_a_short_answer_ends_completions_sooner():
    config = EbftConfig(
        learning_rate=0.1, micro_batch_size=8, gradient_accumulation_steps=1, max_completion_length=400
    )
    assert [config.longest_for(tokens) for tokens in (3, 60, 1000)] == [64, 90, 400]


def test_every_row_must_have_an_answer_and_of_other_methods_none(tmp_path):
    project = project_of(tmp_path / "project")
    override = ("rl=grpo", "ebft=null", "trl.reward_funcs=[./scorer]")
    for more, needed in (((), True), (override, False)):
        nodes = {node.name: node for node in load_pipeline(project.yaml, more).nodes}
        assert nodes["tokenized_asked"].config.needs_answer is needed
        assert nodes["tokenized_asked"].config.needs_prompt
    strided = load_pipeline(project.yaml, ["ebft.mode=strided", "datasets.0.type=ebft_pretrain.transform"])
    assert not strided.node("tokenized_asked").config.needs_prompt


def test_a_row_without_an_answer_is_named(tmp_path):
    model = make_tokenizer(tmp_path / "model")
    data = prompt_data(tmp_path / "prompts", model, ["cab", "abc"])
    words = load_words(model)
    assert len(answers_of(PromptRows(data.rows), words)) == 2
    table = pa.ipc.open_file(pa.memory_map(str(data.rows))).read_all()
    columns = pa.array(['{"ground_truth": "x"}', "{}"])
    bare = table.set_column(table.schema.get_field_index("columns"), "columns", columns)
    file = tmp_path / "bare.arrow"
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, bare.schema) as writer:
        writer.write_table(bare)
    with pytest.raises(RowError, match=r"prompt 2: .* its ground_truth, a text, and there is none"):
        answers_of(PromptRows(file), words)


def test_a_completion_is_cut_where_it_must_end():
    whole = Completion((5, 6, 2), (-1.0, -2.0, -3.0), "stop", 7, "policy")
    assert whole.cut(3) is whole
    assert whole.cut(2) == Completion((5, 6), (-1.0, -2.0), "length", 7, "policy")
