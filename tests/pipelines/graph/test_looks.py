"""`check` refuses what `plan` refuses, in the same words, and says what only another machine may have."""

import json
import os
import re
import subprocess
import sys
import tarfile
import time

import pytest
from support.project import make_project

from tunemill.pipelines.cli import main
from tunemill.pipelines.config import machine
from tunemill.stages.data.sources import names
from tunemill.stages.data.sources.names import matches


@pytest.fixture
def project(tmp_path):
    project = make_project(tmp_path / "project")
    folder = project.folder
    for name in ("empty", "papers", "bare", "damaged", "quantized", "marked", "cut"):
        (folder / name).mkdir()
    (folder / "papers" / "a.pdf").write_text("x")
    (folder / "data" / "rows.xlsx").write_text("x")
    (folder / "data" / "nothing.jsonl").write_text("")
    (folder / "data" / "fake.parquet").write_text("{}\n")
    (folder / "data" / "wide.csv").write_text("question,answer\n1,2\n", encoding="utf-16")
    with tarfile.open(folder / "data" / "packed.jsonl", "w") as archive:
        archive.add(folder / "data" / "sums.jsonl", "sums.jsonl")
    tokenizer = (folder / "model" / "tokenizer.json").read_bytes()
    stored = json.loads((folder / "model" / "config.json").read_text())
    for name, config in (
        ("bare", json.dumps(stored)),
        ("damaged", "{"),
        ("quantized", json.dumps({**stored, "quantization_config": {}})),
        ("marked", json.dumps(stored)),
        ("cut", json.dumps(stored)),
    ):
        (folder / name / "tokenizer.json").write_bytes(tokenizer)
        (folder / name / "config.json").write_text(config)
    (folder / "marked" / "generation_config.json").write_text("{}", encoding="utf-8-sig")
    (folder / "cut" / "tokenizer.json").write_bytes(tokenizer[:-1000])
    return project


def said(capsys, command, project, *overrides):
    state = [] if command == "check" else ["--state", str(project.state)]
    code = main([command, str(project.yaml), *state, *overrides])
    return code, capsys.readouterr().err


WRONG = {
    "base_model=./nowhere": "no such file or folder",
    "base_model=modl": "did you mean `model`?",
    "base_model=empty": "no config.json, so no model folder",
    "base_model=data/sums.jsonl": "is a file; name the folder of a model",
    "base_model=s3://bucket/model": "is a URL, and base_model must be on this machine",
    "base_model=https://huggingface.co/org/name": "is a URL, and base_model must be on this machine",
    "base_model=bare reinit_weights=false": r"no \*.safetensors",
    "base_model=damaged": "config.json is no JSON object",
    "base_model=quantized": "already quantized",
    "base_model=marked": r"generation_config\.json begins with a byte order mark, which transformers does not read",
    "base_model=cut": r"its tokenizer\.json is no JSON object",
    "base_model=models/llama base_model=data/llama": "no such file or folder",
    "model_type=BertModel": "names LlamaForCausalLM",
    "tokenizer_config=empty": "holds no tokenizer",
    "tokenizer_config=./nowhere": "no such file or folder",
    "tokenizer_config=gs://bucket/x": "is a URL, and tokenizer_config must be on this machine",
    "datasets.0.path=data/summs.jsonl": "did you mean `data/sums.jsonl`?",
    "datasets.1.path=./nowhere": "no such file or folder",
    "datasets.0.path=/nowhere/at/all": "no such file or folder",
    "datasets.0.path=empty": "is an empty folder",
    "datasets.0.path=papers": r"holds no data files.*it holds \.pdf",
    "datasets.0.path=data/rows.xlsx": r"extension '\.xlsx'.*set ds_type",
    "datasets.0.path=data/nothing.jsonl": "is empty; it has no rows",
    "datasets.0.path=data/fake.parquet": "is no Parquet file",
    "datasets.0.path=data/wide.csv": "wide.csv: text in UTF-16 or UTF-32, and rows are read as UTF-8",
    "datasets.0.path=data/packed.jsonl": r"packed\.jsonl: a tar archive; unpack it",
    "datasets.0.path=data/*.jsonl": "is a pattern of names",
    "datasets.0.path=json datasets.0.data_files=data/none.jsonl": "no such file or folder",
    "datasets.0.path=json datasets.0.data_files=[none/*.jsonl]": "no such file or folder",
    "datasets.0.path=json datasets.0.data_files=[data/sums.jsonl,data/b.jsonl,c.jsonl]": "nor can 1 more be used",
    "datasets.0.path=oci://bucket/rows.jsonl": "pip install ocifs",
    "datasets.0.type=my_module.rows": r"no my_module\.py with a function",
    "test_datasets.0.path=held.jsonl": "no such file or folder",
    "chat_template=jinja chat_template_jinja=mine.jinja": "path of a file that is there",
    "datasets.0.chat_template_jinja=missing.jinja": "path of a file that is there",
    "optimizer=adamw": "did you mean `adamw_torch`?",
    "learning_rate=": "has no value, or null",
}  # fmt: skip


@pytest.mark.parametrize("overrides", WRONG, ids=lambda text: text)
def test_check_refuses_what_plan_refuses_in_the_same_words(project, capsys, overrides):
    code, checked = said(capsys, "check", project, *overrides.split())
    assert code == 1 and re.search(WRONG[overrides], checked), checked
    for command in ("plan", "run"):
        assert said(capsys, command, project, *overrides.split()) == (1, checked)
    assert not list(project.state.glob("artifacts/*/*"))


def test_everything_that_is_missing_is_said_at_once_with_what_else_is_wrong(project, capsys):
    text = (
        project.yaml.read_text()
        .replace("data/sums.jsonl", "data/s.jsonl")
        .replace("held_out.jsonl", "h.jsonl")
    )
    project.yaml.write_text(f"{text}learnin_rate: 3\noptimizer: adamw\n")
    code, checked = said(capsys, "check", project)
    assert code == 1
    for problem in (
        "datasets[0].path: ",
        "test_datasets[0].path: ",
        "learnin_rate: unknown",
        "optimizer: must",
    ):
        assert problem in checked
    places = [int(number) for number in re.findall(rf"^{re.escape(str(project.yaml))}:(\d+):", checked, re.M)]
    assert len(places) == 4 and places == sorted(places)


def test_names_are_seen_from_the_folder_of_the_yaml(project, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert said(capsys, "check", project)[0] == 0
    assert said(capsys, "plan", project)[0] == 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["base_model=org/name"],
        ["base_model=bare-name"],
        ["base_model=hf://models/org/name"],
        ["tokenizer_config=org/name", "revision_of_model="],
        ["datasets.0.path=org/name"],
        ["base_model=asset://other/merged", "reinit_weights=false"],
        ["datasets.0.path=https://nowhere.invalid/rows.jsonl"],
        ["datasets.0.path=data", "datasets.0.data_files=[sums.jsonl]"],
        ["datasets.0.path=json", "datasets.0.data_files=data/[se]*.jsonl"],
    ],
)
def test_what_only_the_network_or_another_pipeline_knows_is_not_refused(project, capsys, overrides):
    assert said(capsys, "check", project, *overrides) == (0, "")


def test_a_model_of_the_hub_is_accepted(project, capsys):
    assert main(["check", str(project.yaml), "base_model=org/name", "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)
    assert not [note for note in notes if note["path"] == "base_model"]


def test_code_of_a_model_is_noted_with_what_is_in_it(project, capsys):
    (project.folder / "model" / "modeling_own.py").write_text("x = 1")
    found = []
    for text in ("x = 1", "x = 2"):
        (project.folder / "model" / "modeling_own.py").write_text(text)
        assert main(["check", str(project.yaml), "trust_remote_code=true", "--json"]) == 0
        found += [note["message"] for note in json.loads(capsys.readouterr().out) if note["kind"] == "code"]
    assert len(set(found)) == 2 and all("will run: modeling_own.py (contents " in note for note in found)
    assert main(["check", str(project.yaml), "trust_remote_code=true", "base_model=org/name", "--json"]) == 0
    assert "as it is at the commit that is fetched" in capsys.readouterr().out


def test_a_revision_of_a_folder_asks_for_nothing(project, capsys):
    assert main(["check", str(project.yaml), "model_revision=v1", "--json"]) == 0
    notes = {note["kind"]: note["message"] for note in json.loads(capsys.readouterr().out)}
    assert "base_model is no model of the Hub" in notes["idle"] and "renamed" in notes


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("flash_attention=true", "flash_attention"),
        ("attn_implementation=flex_attention", "attn_implementation"),
        ("fp16=true", "fp16"),
        ("tf32=true", "tf32"),
        ("liger_rms_norm=true", "liger_rms_norm"),
        ("kernels=[rms_norm]", "kernels"),
        ("lora_qkv_kernel=true", "lora_qkv_kernel"),
        ("plugins=[cut_cross_entropy]", "plugins"),
    ],
)
def test_what_needs_a_gpu_is_a_note_on_a_machine_without_one(project, capsys, monkeypatch, setting, key):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["check", str(project.yaml), setting, "--json"]) == 0
    notes = [note for note in json.loads(capsys.readouterr().out) if note["kind"] == "elsewhere"]
    assert key in [note["path"] for note in notes] and "This machine has none" in notes[0]["message"]
    if key == "plugins":
        assert notes[0]["message"].startswith("cut_cross_entropy: needs a GPU"), (
            "not `true`, which nobody wrote"
        )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(machine, "DEVICES", ("null",))
    assert main(["check", str(project.yaml), setting, "--json"]) == 0
    assert "elsewhere" not in capsys.readouterr().out


def test_patterns_name_what_they_name(tmp_path):
    for name in ("a.jsonl", "b.csv", "x/c.jsonl", "x/y/d.jsonl", ".h/e.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "x" / "loop").symlink_to(tmp_path)

    def found(pattern):
        return [os.path.relpath(name, tmp_path) for name in matches(f"{tmp_path}/{pattern}")]

    assert (
        found("*.jsonl") == ["a.jsonl"]
        and found("?.csv") == ["b.csv"]
        and found("[ab].*") == ["a.jsonl", "b.csv"]
    )
    assert found("x/*/d.jsonl") == ["x/y/d.jsonl"] and found("*/c.jsonl") == ["x/c.jsonl"]
    assert found("**/*.jsonl") == [".h/e.jsonl", "a.jsonl", "x/c.jsonl", "x/y/d.jsonl"]
    assert found("x/**") == ["x/c.jsonl", "x/y/d.jsonl"] and found("none/*") == ["none/*"]


@pytest.mark.parametrize("pattern", ["/**", "/**/*.jsonl", "/*/**", "/*/*/*/*/*"])
def test_a_pattern_that_leads_through_everything_is_refused_soon(project, capsys, pattern, monkeypatch):
    monkeypatch.setattr(names, "MOST_ENTRIES", 2000)
    started = time.perf_counter()
    code, checked = said(
        capsys, "check", project, "datasets.0.path=json", f"datasets.0.data_files='{pattern}'"
    )
    assert code == 1 and "leads through more than 2000 files and folders" in checked
    assert time.perf_counter() - started < 3


def test_check_imports_nothing_heavy(project):
    code = (
        "import sys; from tunemill.pipelines.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'dagster', 'fsspec', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "check", str(project.yaml)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
