"""The quickstart is real: it learns, merging changes nothing, int8 costs next to nothing, and it refines."""

import json
import shlex
import subprocess
import sys

import pytest
from support.examples import ROOT, alarms, copy_examples, shipped

QUICKSTART = ROOT / "examples" / "quickstart"


def run(name, state, *more):
    folder = state.parent / "examples" / "quickstart"
    command = [sys.executable, "-m", "tunemill.pipelines.cli", "run", str(folder / name), "--json", *more]
    done = subprocess.run([*command, "--state", str(state)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {node["node"]: node for node in json.loads(done.stdout)["nodes"]}


@pytest.fixture(scope="module")
def state(quickstart_folder):
    return quickstart_folder / "state"


@pytest.fixture(scope="module")
def quickstart(state):
    return {node["node"]: node for node in json.loads((state.parent / "nodes.json").read_text())["nodes"]}


def exact_match(nodes, what):
    return nodes[f"evaluation_of_{what}"]["metrics"]["exact_match"]


@pytest.mark.slow
def test_it_raises_no_alarm(state):
    told = json.loads((state.parent / "nodes.json").read_text())
    assert len(told["checks"]) > 30 and alarms(told) == []


@pytest.mark.slow
def test_it_learns(quickstart):
    assert {node["state"] for node in quickstart.values()} == {"computed"}
    assert exact_match(quickstart, "base") < 0.01
    assert exact_match(quickstart, "trained") > 0.9
    assert exact_match(quickstart, "merged") == exact_match(quickstart, "trained")
    assert exact_match(quickstart, "quantized") > exact_match(quickstart, "trained") - 0.02


@pytest.mark.slow
def test_the_command_of_the_page_on_exporting_exports_it_and_nothing_else(quickstart, state):
    page = (ROOT / "docs" / "exporting.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith(".venv/bin/tunemill run "))
    words = shlex.split(line)
    assert words[2] == "examples/quickstart/pipeline.yml"
    nodes = run("pipeline.yml", state, *words[3:])
    made = {"exported_gguf_q8_0", "evaluation_of_exported_gguf_q8_0"}
    assert {name for name, node in nodes.items() if node["state"] == "computed"} == made
    metrics = nodes["exported_gguf_q8_0"]["metrics"]
    assert (
        metrics["mean_kl"] < 1e-3 < metrics["largest_kl"]
        and "texts" in metrics["pre_tokenizer_recognised_by"]
    )
    assert exact_match(nodes, "exported_gguf_q8_0") > exact_match(quickstart, "merged") - 0.01


def test_held_out_rows_are_never_trained_on():
    names = ("dates_words", "dates_numeric")
    trained = {
        row for name in names for row in (QUICKSTART / "data" / f"{name}.jsonl").read_text().splitlines()
    }
    held_out = (QUICKSTART / "data" / "heldout.jsonl").read_text().splitlines()
    answers = {json.loads(row)["messages"][-1]["content"] for row in trained}
    assert not trained & set(held_out)
    assert not answers & {json.loads(row)["messages"][-1]["content"] for row in held_out}


@pytest.mark.slow
def test_its_quantized_model_loads_in_stock_transformers(quickstart):
    path = quickstart["quantized"]["path"]
    code = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer;"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1]);"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1]);"
        "messages = [{'role': 'user', 'content': 'the third of March, 1998'}];"
        "ids = tokenizer.apply_chat_template("
        "messages, add_generation_prompt=True, return_tensors='pt', return_dict=True);"
        "out = model.generate(**ids, max_new_tokens=16, do_sample=False);"
        "print(tokenizer.decode(out[0, ids['input_ids'].shape[1]:], skip_special_tokens=True))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1998-03-03"


@pytest.mark.slow
def test_a_second_pipeline_refines_the_result(quickstart, state):
    refined = run("refine.yml", state)
    assert quickstart and refined["base_model"]["state"] == "computed"
    assert exact_match(refined, "trained") > max(0.9, exact_match(refined, "base"))


@pytest.mark.slow
def test_its_data_and_tokenizer_are_what_the_scripts_make(tmp_path):
    copy = copy_examples(tmp_path) / "quickstart"
    for script in ("make_data.py", "make_tokenizer.py"):
        subprocess.run([sys.executable, str(copy / script)], check=True, capture_output=True)
    for path in shipped("examples/quickstart"):
        assert (copy / path.relative_to(QUICKSTART)).read_bytes() == path.read_bytes(), path
