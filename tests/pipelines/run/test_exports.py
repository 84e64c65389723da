"""Exports are nodes: made of the merged model, linked, scored, and refused where llama.cpp has no such model."""

import json
from importlib.util import find_spec

import pytest
from support.project import nodes_in_state
from support.tiny_model import make_model

from tunemill.pipelines.graph.check_files import check_files
from tunemill.pipelines.graph.load import load_pipeline

EXPORTS = "pipeline.export=[{format: gguf, type: q8_0}, {format: gguf, type: f32, of: adapter}]"


def test_a_pipeline_exports_what_it_merged_and_scores_it(project):
    finished = project.run(EXPORTS, "output_dir=out")
    computed = nodes_in_state(finished, "computed")
    assert computed == {
        "exported_gguf_q8_0",
        "exported_gguf_adapter_f32",
        "evaluation_of_exported_gguf_q8_0",
    }
    made = finished["exported_gguf_q8_0"].published
    assert (project.folder / "out" / "exported_gguf_q8_0" / "model-q8_0.gguf").is_file()
    assert made.manifest["metrics"]["mean_kl"] <= made.manifest["metrics"]["largest_kl"]
    losses = [
        json.loads((finished[f"evaluation_of_{what}"].published.data / "metrics.json").read_text())[
            "eval_loss"
        ]
        for what in ("merged", "exported_gguf_q8_0")
    ]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.02)
    again = project.plan(EXPORTS, "pipeline.evaluate=[exported]")
    assert again["exported_gguf_q8_0"].state == "cached" and "evaluation_of_merged" not in again
    assert (
        "evaluation_of_exported_gguf_q8_0" in again and "evaluation_of_exported_gguf_adapter_f32" not in again
    )


REFUSED = [
    ([EXPORTS.replace("f32", "q8_0")], "pipeline.export[1]", "none of an adapter, whose factors"),
    ([EXPORTS, "adapter=null"], "pipeline.export", "of: adapter takes adapter: lora, and adapter is unset"),
    ([EXPORTS, "lora_modules_to_save=[lm_head]"], "pipeline.export[1].of", "no adapter with what lora_modules_to_save"),
    (["pipeline.evaluate=[exported]"], "pipeline.evaluate", "there is no exported model to evaluate"),
    (["pipeline.export=[{format: gguf, type: q4_k_m}]"], "pipeline.export[0].type", "which is not on PATH"),
    (["pipeline.export=[{format: gguf, type: f16}, {format: gguf, type: f16}]"], "pipeline.export", "asked for twice"),
    ([EXPORTS, "overrides_of_model_config={rope_parameters: {rope_type: dynamic, rope_theta: 1.0, factor: 2.0}}"],
     "pipeline.export", "its positions are turned by rope_type: dynamic"),
    (["pipeline.export=[{format: ggml}]"], "pipeline.export[0]", "needs a format: gguf, for llama.cpp, or compressed"),
    (["pipeline.export=[{format: compressed-tensors, scheme: w8a8, group_size: 32}]"], "pipeline.export[0]",
     "group_size: w8a8 has groups of its own"),
    (["pipeline.export=[{format: compressed-tensors, scheme: fp8-dynamic, seed: 1}]"], "pipeline.export[0]",
     "seed: fp8-dynamic looks at no rows"),
    (["llmcompressor={recipe: {a: b}}"], "llmcompressor.recipe", "ConstantPruningModifier alone is honoured"),
    (["llmcompressor={recipe: {ConstantPruningModifier: {targets: Linear}}, save_compressed: true}"],
     "llmcompressor.save_compressed", "stores zeros no more tightly"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "path", "message"), REFUSED)
def test_what_cannot_be_exported_is_known_before(project, overrides, path, message, monkeypatch):
    monkeypatch.setenv("PATH", "")
    problems = [
        problem for problem in check_files([project.yaml], overrides)[0].problems if not problem.is_note
    ]
    (found,) = (problem for problem in problems if problem.path == path)
    assert message in found.message


@pytest.mark.skipif(find_spec("llmcompressor") is not None, reason="llmcompressor is installed")
def test_a_missing_package_is_known_before(project):
    asked = ["pipeline.export=[{format: compressed-tensors, scheme: fp8-dynamic}]"]
    (found,) = (problem for problem in check_files([project.yaml], asked)[0].problems if not problem.is_note)
    assert found.path == "pipeline.export[0].scheme"
    assert "pip install 'tunemill[llmcompressor]'" in found.message


SIZES = [
    ("quantization={weight_dtype: int8, group_size: 48}", "quantization", "48 does not divide the 64 inputs of "),
    ("qat={weight_dtype: int4, group_size: 48}", "qat", "48 does not divide the 64 inputs of "),
]  # fmt: skip


@pytest.mark.parametrize(("override", "path", "message"), SIZES)
def test_sizes_that_cannot_be_stored_are_known_before(project, tmp_path, override, path, message):
    """Where the base's weights are here."""
    base = make_model(tmp_path / "base")
    asked = [f"base_model={base}", "reinit_weights=false", "adapter=null", "quantization=null"]
    found = [one for one in check_files([project.yaml], [*asked, override])[0].problems if not one.is_note]
    assert [one.path for one in found if message in one.message] == [path], found


def test_rows_are_an_input_only_of_what_looks_at_them(project):
    asked = ", ".join(
        f"{{format: compressed-tensors, scheme: {scheme}}}" for scheme in ("fp8-dynamic", "w8a8")
    )
    graph = load_pipeline(project.yaml, [f"pipeline.export=[{asked}]"])
    inputs = {node.name: set(node.inputs) for node in graph.nodes if node.name.startswith("exported_")}
    assert inputs == {
        "exported_compressed_fp8_dynamic": {"model", "evaluation_data"},
        "exported_compressed_w8a8": {"model", "evaluation_data", "training_data"},
    }


def test_a_model_of_another_kind_is_refused_before_it_trains(project):
    path = project.folder / "model" / "config.json"
    if not path.is_file():
        path = next(project.folder.rglob("config.json"))
    stored = json.loads(path.read_text())
    path.chmod(0o644)
    path.write_text(json.dumps({**stored, "architectures": ["MixtralForCausalLM"]}))
    problems = [
        problem for problem in check_files([project.yaml], [EXPORTS])[0].problems if not problem.is_note
    ]
    assert any("gguf is written of Llama, Mistral" in problem.message for problem in problems), problems
