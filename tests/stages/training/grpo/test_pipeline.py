"""`rl: grpo` from a YAML to a merged model, its rollouts kept beside it; and what `check` refuses."""

import json

import pyarrow as pa
import pytest
from support.preference_project import UNREAD
from support.project import make_project
from support.vllm_stand_in import stand_in_environment

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.sweep import load_sweep
from tunemill.pipelines.report.write import write_report
from tunemill.stages.training.online.vllm_keys import EVERYWHERE

REWARDS = """
def right(completions, messages, **kwargs):
    assert all(one[0]["role"] == "assistant" for one in completions)
    return [float(one[0]["content"] == said[-1]["content"]) for one, said in zip(completions, messages)]


def short(completions, log_metric=None, **kwargs):
    return [-len(one[0]["content"]) / 10 for one in completions]
"""
VARIED = """
def right(completions, **given):
    texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
    return [(sum(map(ord, text)) % 7 + 1) / 9 for text in texts]
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


@pytest.mark.slow
def test_held_out_prompts_are_scored_and_decide_where_that_is_asked_for(tmp_path):
    project = project_of(tmp_path / "project", eval_steps=1, test_datasets=[{"path": "data/held_out.jsonl"}])
    held_out = project.folder / "data" / "held_out.jsonl"
    rows = [{"prompt": f"say {c}", "messages": [{"content": c}]} for c in "xyz"]
    held_out.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (project.folder / "rewards.py").write_text(VARIED)
    one = ("trl.reward_funcs=[rewards.right]", "trl.reward_weights=null")
    nodes = project.run(*one)
    assert nodes["evaluation_data"].stage == "prompt_data"
    metrics = nodes["trained"].published.manifest["metrics"]
    assert 0 < metrics["first_eval_reward"] <= metrics["highest_eval_reward"] < 1
    plots = {plot["title"]: plot for plot in nodes["trained"].published.manifest["plots"]}
    assert plots["eval_reward"]["x"] == [1, 2] and plots["eval_reward"]["y"][1] == metrics["last_eval_reward"]

    def stale(*overrides):
        return {name for name, item in project.plan(*one, *overrides).items() if item.state != "cached"}

    assert stale("eval_steps=2") == stale("trl.num_generations_eval=4") == set()
    decides = "load_best_model_at_end=true"
    assert stale(decides) == {"trained", "merged"}
    keys = {
        project.plan(*one, decides, *more)["trained"].key for more in ((), ("trl.num_generations_eval=4",))
    }
    assert len(keys) == 2
    held_out.write_text(held_out.read_text().replace("x", "w"))
    assert "trained" not in stale() and {"trained", "evaluation_data"} <= stale(decides)
    # Held out of what is learned from: another training, whose held-out rows lie beside it.
    shares = project.run(*one, "test_datasets=null", "val_set_size=3")
    assert (
        "evaluation_data" not in shares
        and shares["training_data"].published.manifest["metrics"]["held_out_rows"] == 3
    )
    assert 0 < shares["trained"].published.manifest["metrics"]["last_eval_reward"] < 1


def test_points_of_a_sweep_are_not_halved_by_a_loss_that_there_is_not(tmp_path):
    block = {"sweep": {"learning_rate": [0.1, 0.2]}, "sweep_settings": {"rungs": [2]}}
    project = project_of(tmp_path / "project", pipeline=block, max_steps=8, val_set_size=3)
    with pytest.raises(ConfigError) as caught:
        load_sweep(project.yaml)
    assert "grpo has rewards in its place. Take rungs out" in " ".join(
        problem.message for problem in caught.value.problems
    )


@pytest.mark.parametrize(
    ("keys", "override", "said"),
    [
        ({}, "trl.num_generations=3", "do not divide the 4"),
        ({}, "trl.generation_batch_size=6", "Use a multiple of that"),
        ({}, "trl.reward_weights=[1.0]", "1 weights for 2"),
        ({}, "trl.reward_weights=[0, 0]", "all are 0"),
        ({"trl": {"beta": 0.2}}, "rl_beta=0.1", "rl_beta: 0.1 is another name of trl.beta, which is 0.2"),
        ({}, "rl_beta=-0.1", "rl_beta: must be at least 0"),
        ({}, "rl_beta=true", "rl_beta: must be a number"),
        ({}, "rl_beta=much", "rl_beta: must be a number"),
        ({"trl": {"beta": "much"}}, "rl_beta=0.1", "trl.beta: must be a number"),
        ({"trl": {"reward_weights": None}}, "trl.reward_funcs=[]", "nothing says how good"),
        ({}, "trl.loss_type=cispo", "epsilon_high"),
        ({}, "trl.generation_kwargs={top_p: 0.9}", "Write trl.top_p: 0.9"),
        ({}, "trl.generation_kwargs={stop: [x]}", "inside of a token"),
        ({}, "trl.generation_kwargs={bad_words: [x]}", "learned from wrongly"),
        ({}, "trl.generation_kwargs={stop_token_id: 5}", "Did you mean stop_token_ids?"),
        ({}, "trl.generation_kwargs={stop_token_ids: [-1]}", "a whole number from 0"),
        ({}, "trl.use_adaptive_entropy=true", "does not support yet"),
        ({"trl": {"use_vllm": True}}, "trl.top_p=0.9", "Remove top_p, or use_vllm"),
        ({"trl": {"use_vllm": True}}, "trl.top_k=5", "Remove top_k, or use_vllm"),
        ({"trl": {"use_vllm": True}}, "trl.min_p=1", "Remove min_p, or use_vllm"),
        ({"trl": {"use_vllm": True}}, "trl.repetition_penalty=1.1", "Remove repetition_penalty, or use_vllm"),
        ({"trl": {"use_vllm": True}}, "trl.vllm_max_model_len=4", "leave no room for a prompt"),
        (
            {"val_set_size": 3, "load_best_model_at_end": True},
            "metric_for_best_model=loss",
            "eval_rewards/right",
        ),
        ({"val_set_size": 3}, "pipeline.leakage=fail", "nothing would fail"),
        (
            {"val_set_size": 3},
            "pipeline.evaluations=[{name: a, metrics: [{metric: exact_match}]}]",
            "without answers",
        ),
        ({"val_set_size": 3}, "pipeline.evaluate=[base]", "nothing scores models of rl: grpo"),
        ({"rl": "gdpo"}, "trl.multi_objective_aggregation=sum_then_normalize", "Use rl: grpo"),
        ({"rl": "gdpo"}, "trl.scale_rewards=batch", "Remove scale_rewards"),
    ],
)
def test_what_check_refuses(tmp_path, keys, override, said):
    assert said in refused(project_of(tmp_path / "project", **keys), override)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine:right", "what mine.py has is named by dots. Write mine.right"),
        ("mine.py::right", "Write mine.right"),
        ("sub/../mine.py:right", "Write mine.right"),
        ("{folder}/mine.py:right", "Write mine.right"),
        ("deeper/mine.py::right", "Write deeper.mine.right"),
        (
            "../beside.py:right",
            "beside.py is not beside the YAML, and nothing is looked for elsewhere. Copy it there",
        ),
        ("mine", "there is no mine.<name> beside the YAML. Write my_module.my_reward"),
        ("other:right", "there is no other.py beside the YAML"),
        ("/nowhere/mine.py:right", "there is no /nowhere/mine.py beside the YAML"),
    ],
)
def test_a_function_that_is_named_as_elsewhere(tmp_path, name, said):
    project = project_of(tmp_path / "project")
    folder = project.yaml.parent
    (folder / "deeper").mkdir()
    for place in ("mine.py", "deeper/mine.py", "../beside.py"):
        (folder / place).write_text("def right(completions): return [1.0 for _ in completions]\n")
    for key in ("reward_funcs", "tools"):
        change = f"trl.{key}=[{name.format(folder=folder)!r}]"
        words = said.replace("my_reward", "my_name") if key == "tools" else said
        assert words in refused(project, "trl.reward_weights=null", change)


def test_both_names_of_beta_are_one_setting(tmp_path):
    yaml = project_of(tmp_path / "project").yaml
    ways = (
        ["trl.beta=0.1"], ["rl_beta=0.1"], ["rl_beta='0.1'"], ["rl_beta=1e-1"], ["rl_beta=0.1", "trl.beta='0.1'"],
    )  # fmt: skip
    configs = [load_pipeline(yaml, overrides).node("trained").config for overrides in ways]
    assert [config.beta for config in configs] == [0.1] * len(ways)
    assert all(config.semantic() == configs[0].semantic() for config in configs)
    assert load_pipeline(yaml, ["rl_beta=0"]).node("trained").config.beta == 0


@pytest.mark.parametrize(
    "override",
    [
        "trl.top_k=0", "trl.min_p=0", "trl.epsilon_high=0.2", "trl.reward_weights=[1, 1]",
        "trl.multi_objective_aggregation=sum_then_normalize",
    ],
)  # fmt: skip
def test_what_is_written_out_as_it_is_anyway_trains_nothing_again(override, tmp_path):
    yaml = project_of(tmp_path / "project", trl={"reward_weights": None}).yaml
    plain, written = (load_pipeline(yaml, given).node("trained").config for given in ([], [override]))
    assert written.semantic() == plain.semantic()


def test_the_only_bound_of_a_loss_is_in_the_key_whatever_the_other_says(tmp_path):
    yaml = project_of(tmp_path / "project", trl={"loss_type": "cispo"}).yaml
    bounds = (("0.2", "0.2"), ("0.3", "0.3"), ("0.3", "0.2"))
    keys = [
        load_pipeline(yaml, [f"trl.epsilon_high={high}", f"trl.epsilon={low}"])
        .node("trained")
        .config.semantic()
        for high, low in bounds
    ]
    assert keys[0] != keys[1] == keys[2]


def test_a_yaml_of_axolotl_with_vllm_beside_the_training_runs_unedited(tmp_path):
    vllm = {"gpu_memory_utilization": 0.4, "tensor_parallel_size": 1, "host": EVERYWHERE, "dtype": "auto"}
    trl = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_server_host": EVERYWHERE,
        "vllm_server_port": 8000,
    }
    python = str(stand_in_environment(tmp_path / "environment"))
    project = project_of(tmp_path / "project", trl=trl, vllm=vllm, pipeline={"vllm_python": python})
    pipeline = load_pipeline(project.yaml)
    config = pipeline.node("trained").config
    assert (config.vllm_share, config.vllm_gpus, config.starts_vllm) == (0.4, 1, True)
    assert {note.path for note in pipeline.notes if "vllm" in note.path} == {
        "trl.vllm_server_host", "trl.vllm_server_port",
    }  # fmt: skip
    # Where vLLM runs, and with how much memory, changes no result.
    ways = ([], ["trl.vllm_gpu_memory_utilization=0.2"], ["vllm.gpu_memory_utilization=0.9"],
            ["trl.vllm_mode=server", "trl.vllm_server_host=null", "trl.vllm_server_port=null"])  # fmt: skip
    found = [load_pipeline(project.yaml, list(way)).node("trained").config for way in ways]
    assert [one.semantic() for one in found] == [config.semantic()] * 4
    assert [one.used_tools() for one in found] == [config.used_tools()] * 4
    (note,) = (
        one
        for one in load_pipeline(project.yaml, ["trl.vllm_enable_sleep_mode=true"]).notes
        if "sleep" in one.path
    )
    assert "`plan --memory` counts" in note.message


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
        ("torch_compile=true", "torch_compile: a compiled model that samples has not been proven with 2"),
    ],
)
def test_processes_are_copies(tmp_path, override, said):
    project = project_of(tmp_path / "project")
    assert said in refused(project, "pipeline.launcher.processes=2", override)
