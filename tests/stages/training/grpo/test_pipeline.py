"""`rl: grpo` from a YAML to a merged model, its rollouts kept beside it; and what `check` refuses."""

import json

import pyarrow as pa
import pytest
from support.preference_project import UNREAD
from support.project import make_project

from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.report.write import write_report

REWARDS = """
def right(completions, messages, **kwargs):
    assert all(one[0]["role"] == "assistant" for one in completions)
    return [float(one[0]["content"] == said[-1]["content"]) for one, said in zip(completions, messages)]


def short(completions, log_metric=None, **kwargs):
    return [-len(one[0]["content"]) / 10 for one in completions]
"""
TRL = {
    "reward_funcs": ["rewards.right", "rewards.short"],
    "reward_weights": [1.0, 0.5],
    "num_generations": 2,
    "max_completion_length": 4,
    "scale_rewards": True,
}


def project_of(folder, trl=None, **keys):
    project = make_project(
        folder,
        **{
            **UNREAD,
            "rl": "grpo",
            "trl": {**TRL, **(trl or {})},
            "datasets": [
                {"path": "data/sums.jsonl", "type": "chat_template"},
                {"path": "data/asked.jsonl"},
            ],
            "test_datasets": None,
            "quantization": None,
            "micro_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "max_steps": 2,
            **keys,
        },
    )
    rows = [
        {"prompt": [{"role": "user", "content": f"say {c}"}], "messages": [{"content": c}]} for c in "abc"
    ]
    (folder / "data" / "asked.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "rewards.py").write_text(REWARDS)
    return project


def refused(project, *overrides):
    with pytest.raises(Exception) as caught:
        load_pipeline(project.yaml, overrides)
    return str(caught.value)


def test_from_a_yaml_to_a_merged_model_with_its_rollouts(tmp_path):
    project = project_of(tmp_path / "project")
    nodes = project.run()
    assert {item.state for item in nodes.values()} == {"computed"}
    assert nodes["trained"].stage == "grpo" and nodes["tokenized_sums"].stage == "prompts"
    folder = nodes["trained"].published.folder
    metrics = nodes["trained"].published.manifest["metrics"]
    assert metrics["steps"] == metrics["rounds"] == 2 and metrics["kept_rollouts"] == 8
    assert metrics["largest_mismatch"] < 1e-4 and metrics["strayed"] == 0
    table = pa.ipc.open_file(pa.memory_map(str(folder / "logs" / "rollouts.arrow"))).read_all()
    rows = table.to_pylist()
    assert [row["group"] for row in rows] == [0, 0, 1, 1] * 2
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first["prompt_ids"] == second["prompt_ids"] and first["seed"] != second["seed"]
        assert first["prompt_row"] == second["prompt_row"]
    assert len({row["policy"] for row in rows}) == 2, "the second round is of another policy"
    for row in rows:
        assert row["reward"] == pytest.approx(row["rewards"][0] + 0.5 * row["rewards"][1])
        assert row["rewards"][1] == -len(row["text"]) / 10
        assert len(row["log_p"]) == len(row["completion_ids"])
    assert json.loads(table.schema.metadata[b"rewards"]) == {
        "names": ["right", "short"],
        "weights": [1.0, 0.5],
        "steps": 1,
    }
    told = write_report(load_pipeline(project.yaml), project.store).read_text()
    assert (
        'id="rollouts"' in told
        and "8 completions of 2 rounds kept" in told
        and "the worst completions" in told
    )
    # Everything is cached, an edited reward makes a new training, and a bound on what is kept none.
    assert {item.state for item in project.plan().values()} == {"cached"}
    assert project.plan("pipeline.keep_rollouts=2")["trained"].state == "cached"
    (project.folder / "rewards.py").write_text(REWARDS + "\n# edited\nEDITED = 1\n")
    assert {name for name, item in project.plan().items() if item.state != "cached"} == {"trained", "merged"}


@pytest.mark.parametrize(
    ("keys", "override", "said"),
    [
        ({}, "trl.num_generations=3", "do not divide the 4"),
        ({}, "trl.generation_batch_size=6", "Use a multiple of that"),
        ({}, "trl.reward_weights=[1.0]", "1 weights for 2"),
        ({"trl": {"reward_weights": None}}, "trl.reward_funcs=[]", "nothing says how good"),
        ({}, "trl.loss_type=cispo", "epsilon_high"),
        ({}, "trl.use_adaptive_entropy=true", "does not support yet"),
        ({"trl": {"use_vllm": True}}, "trl.top_p=0.9", "Remove top_p, or use_vllm"),
        ({"trl": {"use_vllm": True}}, "trl.top_k=5", "Remove top_k, or use_vllm"),
        ({"trl": {"use_vllm": True}}, "trl.min_p=1", "Remove min_p, or use_vllm"),
        ({"trl": {"use_vllm": True}}, "trl.repetition_penalty=1.1", "Remove repetition_penalty, or use_vllm"),
        ({"trl": {"use_vllm": True}}, "trl.vllm_max_model_len=4", "leave no room for a prompt"),
        ({}, "val_set_size=0.1", "none is held out"),
        ({"rl": "gdpo"}, "trl.multi_objective_aggregation=sum_then_normalize", "Use rl: grpo"),
        ({"rl": "gdpo"}, "trl.scale_rewards=batch", "Remove scale_rewards"),
    ],
)
def test_what_check_refuses(tmp_path, keys, override, said):
    assert said in refused(project_of(tmp_path / "project", **keys), override)


def test_rounds_are_the_same_however_many_processes_share_them(tmp_path):
    project = project_of(tmp_path / "project")
    ways = [
        ["gradient_accumulation_steps=4", "trl.steps_per_generation=8"],
        ["gradient_accumulation_steps=2", "trl.steps_per_generation=4", "pipeline.launcher.processes=2"],
        ["gradient_accumulation_steps=1", "trl.steps_per_generation=2", "pipeline.launcher.processes=4"],
    ]
    configs = [load_pipeline(project.yaml, way).node("trained").config for way in ways]
    assert [config.semantic() for config in configs] == [configs[0].semantic()] * 3
    assert [(config.ranks, config.per_step, config.per_round) for config in configs] == [
        (1, 8, 16), (2, 8, 16), (4, 8, 16),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("fsdp_version=2", "fsdp_version: each process samples of the whole model"),
        ("deepspeed={zero_optimization: {stage: 3}}", "deepspeed: each process samples of the whole model"),
    ],
)
def test_processes_are_copies(tmp_path, override, said):
    project = project_of(tmp_path / "project")
    assert said in refused(project, "pipeline.launcher.processes=2", override)
