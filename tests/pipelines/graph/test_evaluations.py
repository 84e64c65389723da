"""`pipeline.evaluations`: which nodes it makes, and what `check` says of what is wrong."""

import importlib.util as util

import pytest
from support.configs import DPO, HELD_OUT, LORA, SFT, load, problems

from tunemill.pipelines.graph.check_files import check_files
from tunemill.pipelines.graph.keys import upstream_of

JUDGED = {"metrics": ["judge"]}
OWN = {"path": "own.jsonl", "type": "chat_template"}


def with_evaluations(*entries, config=SFT, **keys):
    return {**config, **keys, "pipeline": {"evaluations": list(entries)}}


def said(folder, *entries, config=SFT, **keys):
    return {
        found.path: found.message
        for found in problems(folder, with_evaluations(*entries, config=config, **keys))
    }


def test_each_evaluation_has_nodes_for_each_of_its_models(tmp_path):
    pipeline = load(
        tmp_path,
        with_evaluations(
            {"name": "own", "on": ["base", "merged"], "data": OWN},
            {"name": "held", "on": ["trained"], "metrics": ["loss"]},
            {"name": "judged", "on": ["trained"], "metrics": ["judge"], "judge": {"url": "http://h/v1", "model": "m"}},
            **LORA, **HELD_OUT,
        ),
    )  # fmt: skip
    nodes = {node.name: node for node in pipeline.nodes}
    made = {name for name in nodes if "own" in name or "held_of" in name or "judged" in name}
    assert made == {
        "dataset_own", "tokenized_own", "evaluation_data_own", "leakage_own", "generations_own_of_base",
        "generations_own_of_merged",
        "evaluation_own_of_base", "evaluation_own_of_merged", "evaluation_held_of_trained",
        "generations_judged_of_trained", "judgements_judged_of_trained", "evaluation_judged_of_trained",
    }  # fmt: skip
    assert upstream_of(nodes["generations_own_of_merged"]) == ["merged", "evaluation_data_own"]
    assert upstream_of(nodes["evaluation_own_of_merged"]) == ["generations_own_of_merged"], "no model"
    assert upstream_of(nodes["evaluation_held_of_trained"]) == ["base_model", "trained", "evaluation_data"]
    assert set(upstream_of(nodes["evaluation_judged_of_trained"])) == {
        "generations_judged_of_trained", "judgements_judged_of_trained",
    }  # fmt: skip
    assert nodes["dataset_own"].config.held_out, "of several splits, test is meant"


def test_without_a_list_all_models_are_evaluated_and_preferences_may_have_rows_of_their_own(tmp_path):
    pipeline = load(tmp_path, with_evaluations({"name": "own", "data": OWN}, config={**DPO, **LORA}))
    scored = [node.name for node in pipeline.nodes if node.name.startswith("evaluation_own")]
    assert scored == [f"evaluation_own_of_{what}" for what in ("base", "trained", "merged")]


def test_keys_of_sampling_and_metrics_move_the_keys_of_their_own_stages(tmp_path):
    def configs(**keys):
        pipeline = load(tmp_path, with_evaluations({"name": "own", "on": ["base"], "data": OWN, **keys}))
        return [
            pipeline.node(f"{what}_own_of_base").config.semantic() for what in ("generations", "evaluation")
        ]

    plain = configs()
    assert configs(metrics=["numeric"])[0] == plain[0] and configs(metrics=["numeric"])[1] != plain[1]
    drawn = configs(do_sample=True, seed=3)
    assert drawn[0] == {"do_sample": True, "seed": 3} and drawn[1] == plain[1]


def test_the_keys_of_an_entry_stand_for_those_of_the_top(tmp_path):
    def config(entry=None, **keys):
        entry = {"name": "own", "on": ["base"], "data": OWN, **(entry or {})}
        return (
            load(tmp_path, with_evaluations(entry, **keys, **HELD_OUT)).node("generations_own_of_base").config
        )

    top = {"eval_max_new_tokens": 9, "eval_batch_size": 3}
    assert (config(**top).longest, config(**top).rows_at_once) == (9, 3)
    both = config({"max_new_tokens": 5, "batch_size": 2}, **top)
    assert (both.longest, both.rows_at_once) == (5, 2)
    assert both.semantic() == config({"max_new_tokens": 5, "batch_size": 2}).semantic()


@pytest.mark.parametrize(
    "entries, keys, path, words",
    [
        ([{"name": "a", "on": ["base", "merged"]}], HELD_OUT, "[0].on[1]", "no merged model without `adapter`"),
        ([{"name": "a", "on": ["trainde"]}], HELD_OUT, "[0].on[0]", "there is no model trainde"),
        ([{"name": "a", "on": ["exported"]}], HELD_OUT, "[0].on[0]", "pipeline.export asks for none"),
        ([{"name": "a", "on": ["base", "base"]}], HELD_OUT, "[0].on[1]", "twice"),
        ([{"name": "a"}, {"name": "a"}], HELD_OUT, "[1].name", "another evaluation is called a"),
        ([{"name": "rows", "data": OWN}], {}, "[0].name", "dataset_rows"),
        ([{"name": "a"}], {}, "[0].name", "no rows to evaluate on"),
        ([{"name": "a b", "data": OWN}], {}, "[0].name", "must be text of the form"),
        ([{"name": "a", "data": OWN, "temperature": 0.5}], {}, "[0]", "only read with do_sample"),
        ([{"name": "a", "data": OWN, "metrics": ["exact_mach"]}], {}, "[0].metrics[0]", "must be one of exact_match"),
        ([{"name": "a", "data": OWN, "metrics": ["my.score"]}], {}, "[0].metrics", "no my.py beside the YAML"),
        ([{"name": "a", "data": OWN, "metrics": [{"pattern": "x"}]}], {}, "[0].metrics[0]", "needs a `metric`"),
        (
            [{"name": "a", "data": OWN, "metrics": [{"metric": "regex", "pattern": "("}]}], {},
            "[0].metrics[0].pattern", "no regular expression",
        ),
        ([{"name": "a", "data": OWN, "metrics": ["bleu", "bleu"]}], {}, "[0].metrics", "two figures would be called"),
        (
            [{"name": "a", "data": OWN, "metrics": [{"metric": "regex", "pattern": "x", "name": "tokens"}]}], {},
            "[0].metrics", "tokens",
        ),
        ([{"name": "a", "data": OWN, "metrics": ["loss", "bleu"]}], {}, "[0]", "an entry of its own"),
        ([{"name": "a", "data": OWN, "metrics": ["loss"], "do_sample": True}], {}, "[0]", "generates no answer"),
        ([{"name": "a", "data": OWN, "metrics": ["judge"]}], {}, "[0]", "needs the key `judge`"),
        (
            [{"name": "a", "data": OWN, "judge": {"url": "http://h", "model": "m"}}], {},
            "[0]", "Add it to metrics",
        ),
        (
            [{"name": "a", "data": OWN, **JUDGED, "judge": {"url": "http://me:secret@h", "model": "m"}}], {},
            "[0].judge.url", "OPENAI_API_KEY",
        ),
        (
            [{"name": "a", "data": OWN, **JUDGED, "judge": {"url": "http://h", "model": "m", "prompt": "?"}}],
            {}, "[0].judge.prompt", "{prediction}",
        ),
        ([{"name": "a", "group": "topic"}], HELD_OUT, "[0]", "is a field of the rows of `data`"),
        ([{"name": "a", "data": OWN, "engine": "vlm"}], {}, "[0].engine", "must be one of transformers, vllm"),
        ([{"name": "a", "data": OWN, "engine": {"url": "http://h"}}], {}, "[0].engine", "Write `engine: {kind: vllm"),
        ([{"name": "a", "data": OWN, "engine": {"kind": "vllm", "model": "m"}}], {}, "[0].engine", "Give its url"),
        (
            [{"name": "a", "data": OWN, "engine": "vllm"}], {**LORA, "peft_use_dora": True},
            "[0].engine", "none with peft_use_dora. Name merged, in place of trained",
        ),
        ([{"name": "a", "data": {**OWN, "field_mesages": "x"}}], {}, "[0].data.field_mesages", "unknown key"),
        ([{"name": "a", "data": {**OWN, "field": "x"}}], {}, "[0].data.field", "only used with type: completion"),
        ([{"name": "a", "metrics": ["bleu"]}], {**DPO, "val_set_size": 2}, "[0].name", "Give `data`"),
        (
            [{"name": "a", "data": OWN}], {**DPO, "rl": None, "reward_model": True},
            "[0].name", "the model scores",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_where_it_stands(tmp_path, entries, keys, path, words):
    found = said(tmp_path, *entries, **keys)
    assert words in found[f"pipeline.evaluations{path}"], found


def test_check_reads_functions_and_schemas_and_asks_for_packages(tmp_path, monkeypatch):
    metrics = [
        "mine.py:missing",
        "mine.score",
        {"metric": "json_schema", "fits": {"type": "nothing"}},
        "bleu",
    ]
    (tmp_path / "mine.py").write_text("def score(prediction, wrong): ...\n")
    entry = {"on": ["base"], "data": OWN}
    entries = [{**entry, "name": f"e{number}", "metrics": [one]} for number, one in enumerate(metrics)]
    real = util.find_spec
    monkeypatch.setattr(
        util, "find_spec", lambda name, *more: None if name == "sacrebleu" else real(name, *more)
    )
    load(tmp_path, with_evaluations(*entries))
    (checked,) = check_files([tmp_path / "x.yml"], [])
    found = {problem.path: problem.message for problem in checked.problems if "evaluations" in problem.path}
    words = [
        "has no function missing",
        "score takes wrong",
        "is no JSON schema",
        "pip install 'tunemill[sacrebleu]'",
    ]
    for number, expected in enumerate(words):
        assert expected in found[f"pipeline.evaluations[{number}].metrics"]
