"""Files of models on the Hub, from a server that speaks its API. huggingface_hub finds it in a process of its own."""

import hashlib
import json
import subprocess
import sys
import time

import pytest
from support.hub import hub_server

TOKEN = "hf_only_for_these_tests_0123456789"  # noqa: S105
CODE = """
import json, pathlib, sys
from support.rows import run_stage
from tunemill.stages.errors import UserError
from tunemill.stages.models.hub_files.config import HubFilesConfig
from tunemill.stages.models.hub_files.stage import HUB_FILES
found = {}
for case, config in json.loads(sys.stdin.read()).items():
    folder = pathlib.Path(sys.argv[1]) / case
    try:
        _, events = run_stage(HUB_FILES, HubFilesConfig(**config), folder)
        files = sorted(str(p.relative_to(folder / "data")) for p in (folder / "data").rglob("*") if p.is_file())
        found[case] = {"files": files, "events": events.sent, "summary": events.summary}
    except UserError as error:
        found[case] = {"error": str(error)}
print(json.dumps(found))
"""
RESUME = """
import pathlib
from support.rows import Events
from tunemill.stages.models.hub_files.body import hub_files
from tunemill.stages.models.hub_files.config import HubFilesConfig
from tunemill.stages.report import Report, Workspace
folder = pathlib.Path({folder!r})
workspace = Workspace(*(folder / name for name in ("data", "checkpoints", "logs")))
hub_files(HubFilesConfig(repository="hf://models/{repository}"), workspace, Report(Events().sent.append))
"""
TOKENIZER = {"tokenizer.json": b"{}", "tokenizer_config.json": b"{}", "merges.txt": b"a b"}
MODEL = {
    **TOKENIZER,
    "config.json": b"{}",
    "generation_config.json": b"{ }",
    "model.safetensors": b"weights" * 9,
}
JUNK = {
    "README.md": b"# model",
    ".gitattributes": b"",
    "pytorch_model.bin": b"pickle",
    "model.gguf": b"GGUF",
    "original/consolidated.00.pth": b"pickle",
    "onnx/model.onnx": b"onnx",
    "consolidated.safetensors": b"twice",
    "adapter/adapter_model.safetensors": b"adapter",
    "modeling_own.py": b"raise SystemExit('code was run')",
}
TEMPLATES = {"chat_template.jinja": b"{{ 1 }}", "additional_chat_templates/tool.jinja": b"{{ 2 }}"}


LORA = {"adapter_config.json": b'{"peft_type": "LORA"}', "adapter_model.safetensors": b"factors"}


def sharded(*shards, named=("a", "b")):
    index = {"weight_map": {f"t.{name}": f"model-{name}.safetensors" for name in named}}
    weights = {f"model-{name}.safetensors": name.encode() * 99 for name in shards}
    described = {**MODEL, "model.safetensors.index.json": json.dumps(index).encode()}
    return {name: data for name, data in {**described, **weights}.items() if name != "model.safetensors"}


def only(*names):
    return {name: {**MODEL, **JUNK}[name] for name in names}


REPOSITORIES = {
    "owner/plain": {**MODEL, **JUNK, **TEMPLATES},
    "owner/sharded": {**sharded("a", "b", "unused"), **JUNK},
    "owner/incomplete": sharded("a"),
    "owner/mixed": {
        **sharded("a"),
        "model.safetensors.index.json": b'{"weight_map": {"t": "x.bin"}}',
        "x.bin": b"",
    },
    "owner/broken": {**sharded("a", "b"), "model.safetensors.index.json": b"{"},
    "owner/pickled": only("config.json", "pytorch_model.bin"),
    "owner/gguf": only("config.json", "model.gguf"),
    "owner/mistral": only("config.json", "consolidated.safetensors"),
    "owner/empty": only("config.json"),
    "owner/adapter": {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"},
    "owner/lora": {**LORA, **JUNK, "adapter_model.bin": b"pickle", "tokenizer.json": b"{}"},
    "owner/prompts": {**LORA, "adapter_config.json": b'{"peft_type": "PROMPT_TUNING"}'},
    "owner/odd": {**LORA, "adapter_config.json": b"["},
    "owner/pickled-adapter": {
        "adapter_config.json": LORA["adapter_config.json"],
        "adapter_model.bin": b"pickle",
    },
    "owner/no-weights": {"adapter_config.json": LORA["adapter_config.json"]},
    "owner/dataset": {"train.jsonl": b""},
    "bare": MODEL,
}
CASES = {
    "plain": {"repository": "owner/plain"},
    "sharded": {"repository": "owner/sharded"},
    "bare": {"repository": "bare"},
    "drawn": {"repository": "owner/pickled", "reinit_weights": True},
    "tokenizer": {"repository": "owner/plain", "needed": "tokenizer"},
    "code": {"repository": "owner/plain", "trust_remote_code": True},
    "tokenizer without code": {"repository": "owner/plain", "needed": "tokenizer", "trust_remote_code": True},
    "config": {"repository": "owner/plain", "needed": "config"},
    "config with code": {"repository": "owner/plain", "needed": "config", "trust_remote_code": True},
    "ignored": {"repository": "owner/plain", "base_model_ignore_patterns": "*.jinja"},
    "branch": {"repository": "owner/moving", "revision": "v1"},
    "commit": {"repository": "owner/moving", "revision": "COMMIT"},
    "private": {"repository": "owner/private"},
    "demanded": {"repository": "owner/plain", "hf_use_auth_token": True},
    "gated": {"repository": "owner/gated"},
    "no revision": {"repository": "owner/moving", "revision": "v9"},
    "incomplete": {"repository": "owner/incomplete"},
    "mixed": {"repository": "owner/mixed"},
    "broken": {"repository": "owner/broken"},
    "pickled": {"repository": "owner/pickled"},
    "gguf": {"repository": "owner/gguf"},
    "mistral": {"repository": "owner/mistral"},
    "empty": {"repository": "owner/empty"},
    "adapter": {"repository": "owner/adapter"},
    "dataset": {"repository": "owner/dataset"},
    "lora": {
        "repository": "owner/lora",
        "needed": "adapter",
        "base_model_ignore_patterns": ["*.safetensors"],
    },
    "prompts": {"repository": "owner/prompts", "needed": "adapter"},
    "odd": {"repository": "owner/odd", "needed": "adapter"},
    "pickled adapter": {"repository": "owner/pickled-adapter", "needed": "adapter"},
    "no weights": {"repository": "owner/no-weights", "needed": "adapter"},
    "model for adapter": {"repository": "owner/plain", "needed": "adapter"},
    "dataset for adapter": {"repository": "owner/dataset", "needed": "adapter"},
    "none": {"repository": "owner/none"},
    "ignored weights": {"repository": "owner/plain", "base_model_ignore_patterns": ["*.safetensors"]},
    "ignored shard": {"repository": "owner/sharded", "base_model_ignore_patterns": ["model-b*"]},
    "no tokenizer": {"repository": "owner/dataset", "needed": "tokenizer"},
    "damaged": {"repository": "owner/damaged"},
}


@pytest.fixture(scope="module")
def hub():
    with hub_server() as server:
        for name, files in REPOSITORIES.items():
            server.model(name).commit(files)
        moving = server.model("owner/moving")
        CASES["commit"]["revision"] = moving.commit({**MODEL, "merges.txt": b"v1"}, "v1")
        moving.commit(MODEL)
        server.model("owner/private", token=TOKEN).commit(MODEL)
        server.model("owner/gated", token="hf_of_somebody_else", gated=True).commit(MODEL)  # noqa: S106
        server.model("owner/damaged").commit({**MODEL, "model.safetensors": b"d" * 50})
        yield server


@pytest.fixture
def own_hub():
    with hub_server() as server:
        yield server


def start(hub, folder, cases, **environment):
    named = {case: {**c, "repository": f"hf://models/{c['repository']}"} for case, c in cases.items()}
    child = subprocess.Popen(
        [sys.executable, "-c", CODE, str(folder)],
        env=hub.environment(folder) | environment,
        cwd=__file__.partition("/stages/")[0],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    child.stdin.write(json.dumps(named))
    child.stdin.close()
    return child


def load(hub, folder, cases, **environment):
    child = start(hub, folder, cases, **environment)
    out, err = child.stdout.read(), child.stderr.read()
    assert child.wait(timeout=60) == 0, err
    assert TOKEN not in out + err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def found(hub, folder):
    hub.damaged.add("model.safetensors")
    damaged = load(hub, folder / "1", {"damaged": CASES["damaged"]})
    hub.damaged.clear()
    others = {case: config for case, config in CASES.items() if case != "damaged"}
    return load(hub, folder, others, HF_TOKEN=TOKEN) | damaged


@pytest.mark.parametrize(
    ("case", "files"),
    [
        ("plain", {*MODEL, *TEMPLATES}),
        ("sharded", {*sharded("a", "b")}),
        ("bare", {*MODEL}),
        ("drawn", {"config.json"}),
        ("tokenizer", {*TOKENIZER, *TEMPLATES, "config.json"}),
        ("code", {*MODEL, *TEMPLATES, "modeling_own.py"}),
        ("tokenizer without code", {*TOKENIZER, *TEMPLATES, "config.json"}),
        ("config", {"config.json"}),
        ("config with code", {"config.json", "modeling_own.py"}),
        ("ignored", {*MODEL}),
        ("branch", {*MODEL}),
        ("private", {*MODEL}),
        ("lora", {*LORA}),
        ("demanded", {*MODEL, *TEMPLATES}),
    ],
)
def test_only_what_is_needed_is_fetched(found, case, files):
    assert set(found[case].get("files", [])) == files, found[case].get("error")


def test_the_files_are_those_of_the_repository_and_are_told_with_their_hashes(hub, found, folder):
    for name, content in MODEL.items():
        assert (folder / "plain" / "data" / name).read_bytes() == content
    (table,) = [event for event in found["plain"]["events"] if event["type"] == "table"]
    told = {name: (size, digest) for name, size, digest in table["rows"]}
    assert told["model.safetensors"] == (63, hashlib.sha256(MODEL["model.safetensors"]).hexdigest())
    assert found["plain"]["summary"] == {
        "repository": "owner/plain",
        "commit": hub.models["owner/plain"].revisions["main"],
        "files": len(told),
        "bytes": sum(size for size, _ in told.values()),
    }


@pytest.mark.parametrize("case", ["branch", "commit"])
def test_a_revision_is_a_commit(hub, found, folder, case):
    assert found[case]["summary"]["commit"] == hub.models["owner/moving"].revisions["v1"]
    assert (folder / case / "data" / "merges.txt").read_bytes() == b"v1"


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no revision", ["owner/moving: has no revision 'v9' on the Hub", "/owner/moving/tree/main lists"]),
        ("gated", ["owner/gated: is gated: accept its terms on http://127", "/owner/gated", "hf auth login"]),
        ("none", ["neither a local file or folder nor a model on the Hub", "hf auth login"]),
        ("incomplete", ["model.safetensors.index.json names model-b.safetensors, not in the repository."]),
        ("mixed", ["names x.bin, which is no safetensors file"]),
        ("broken", ["its model.safetensors.index.json is damaged"]),
        ("pickled", ["its weights are pickled (pytorch_model.bin)", "save_pretrained"]),
        ("gguf", ["its weights are GGUF"]),
        ("mistral", ["(consolidated.safetensors) are in a layout that transformers does not read"]),
        ("empty", ["it has no weights"]),
        ("adapter", ["is an adapter and no model"]),
        ("dataset", ["has no config.json"]),
        ("prompts", ["owner/prompts: an adapter of the kind PROMPT_TUNING; training goes on from LoRA"]),
        ("odd", ["owner/odd: no adapter_config.json that can be read"]),
        ("pickled adapter", ["its adapter is pickled (adapter_model.bin)", "save_pretrained"]),
        ("no weights", ["has no adapter_model.safetensors"]),
        ("model for adapter", ["owner/plain has no adapter_config.json", "it is a model: set base_model"]),
        ("dataset for adapter", ["owner/dataset has no adapter_config.json, so it holds no adapter"]),
        ("ignored weights", ["without what base_model_ignore_patterns leaves out: *.safetensors"]),
        ("ignored shard", ["names model-b.safetensors", "base_model_ignore_patterns leaves out: model-b*"]),
        ("no tokenizer", ["owner/dataset has no files of a tokenizer"]),
        ("damaged", ["model.safetensors came twice with other contents than the Hub says"]),
    ],
)
def test_what_cannot_be_used_is_refused(found, case, said):
    error = found[case].get("error", "no error")
    assert all(text in error for text in said) and "\n" not in error, error


@pytest.mark.parametrize(
    ("settings", "environment", "said"),
    [
        ({}, {}, "nor a model on the Hub that can be seen from here"),
        ({"hf_use_auth_token": True}, {}, "hf_use_auth_token: true demands a token"),
        (
            {"hf_use_auth_token": False},
            {"HF_TOKEN": TOKEN},
            "nor a model on the Hub that can be seen from here",
        ),
        ({}, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub cannot be reached: "),
        ({}, {"HF_HUB_OFFLINE": "1"}, "the Hub is not asked, because HF_HUB_OFFLINE is set"),
    ],
)
def test_who_is_not_let_in(hub, tmp_path, settings, environment, said):
    config = {"repository": "owner/private", **settings}
    assert said in load(hub, tmp_path, {"x": config}, **environment)["x"].get("error", "no error")


def test_a_fetch_that_was_killed_goes_on_where_it_was(own_hub, tmp_path):
    weights = bytes(range(256)) * 64_000
    own_hub.model("owner/large").commit({**MODEL, "model.safetensors": weights})
    own_hub.stalls["model.safetensors"] = 12_000_000
    child = start(own_hub, tmp_path / "first", {"x": {"repository": "owner/large"}})
    assert own_hub.stalled.wait(60)
    partial = tmp_path / "first" / "x" / "checkpoints"
    for _ in range(200):
        sizes = [path.stat().st_size for path in partial.rglob(".partial/*")]
        if sizes and sizes[0] > 0:
            break
        time.sleep(0.05)
    child.kill()
    child.wait()
    for pipe in (child.stdout, child.stderr):
        pipe.close()
    (kept,) = [path.stat().st_size for path in partial.rglob(".partial/*")]
    assert 0 < kept < len(weights)
    own_hub.stalls.clear()
    own_hub.requests.clear()
    # The store gives the next attempt the checkpoints of the last.
    second = own_hub.run(
        tmp_path, RESUME.format(folder=str(tmp_path / "first" / "x"), repository="owner/large")
    )
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "first" / "x" / "data" / "model.safetensors").read_bytes() == weights
    assert own_hub.fetched[-1] == ("model.safetensors", kept)
    fetched_again = [
        item for item in own_hub.requests if item.startswith("GET") and item.endswith("/config.json")
    ]
    assert not fetched_again, "what was there already is not fetched again"
