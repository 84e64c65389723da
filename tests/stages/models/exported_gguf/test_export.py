"""What is written for llama.cpp is the model, in every type; and a file that is not the model is refused."""

import json
import shutil

import gguf
import numpy as np
import pytest
import torch
from support.gguf_files import CONFIGS, exported, make_family, make_model_with_bos, rewritten
from support.tiny_model import folder_bytes, make_model

from tunemill.pipelines.graph.keys import key_document
from tunemill.pipelines.graph.nodes import Node
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.errors import UserError
from tunemill.stages.models.exported_gguf import llama_cpp_body
from tunemill.stages.models.exported_gguf.body import quantize
from tunemill.stages.models.exported_gguf.config import ExportedGgufConfig
from tunemill.stages.models.exported_gguf.proof_body import prove_model
from tunemill.stages.models.exported_gguf.proof_weights_body import allowed
from tunemill.stages.models.exported_gguf.stage import EXPORTED_GGUF

FAST = ("llama3", "qwen2", "gemma", "gemma3_usual")
READ_BY_TRANSFORMERS = ("llama", "mistral", "qwen2", "phi3", "gemma3_usual")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model with BOS in its template, and its file in q8_0."""
    folder = tmp_path_factory.mktemp("made")
    model = make_model_with_bos(folder / "model")
    file, heard = exported(folder / "out", model, "q8_0")
    return model, file, heard.summary


def test_the_manifest_has_each_figure_beside_its_bound(made):
    _, file, summary = made
    assert summary["mean_kl"] <= summary["largest_kl"] and summary["largest_share_of_allowed_error"] <= 1
    assert summary["bytes_after"] == file.stat().st_size < summary["bytes_before"] / 2
    assert summary["pre_tokenizer"] == "gpt-2" and summary["pre_tokenizer_recognised_by"] == "expression"
    assert summary["stop_tokens"] == "<|im_end|>" and summary["proof"] in ("full", "partial")
    if summary["proof"] == "partial":
        assert "llama.cpp itself has not read it" in summary["proof_missing"]


SLOW_TYPES = [
    pytest.param(
        kind, marks=[pytest.mark.exhaustive if kind in ("f16", "q5_0", "q4_1") else pytest.mark.slow]
    )
    for kind in ("f32", "f16", "bf16", "q5_1", "q5_0", "q4_1", "mxfp4")
]


@pytest.mark.parametrize("kind", ["q4_0", *SLOW_TYPES])
def test_every_type_is_read_back(made, tmp_path, kind, monkeypatch):
    monkeypatch.setenv("PATH", "")
    file, heard = exported(tmp_path, made[0], kind)
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors if len(tensor.shape) == 2}
    assert kinds == {kind.upper()} | ({"Q8_0"} if kind[0] in "qm" else set())
    assert heard.summary["mean_kl"] <= heard.summary["largest_kl"]


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(
            name,
            marks=[] if name in FAST else [pytest.mark.slow if name == "gemma3" else pytest.mark.exhaustive],
        )
        for name in CONFIGS
    ],
)
def test_every_family_is_written_exactly(tmp_path, family, monkeypatch):
    monkeypatch.setenv("PATH", "")
    model = make_family(tmp_path / "model", family, dtype=torch.bfloat16)
    _, heard = exported(tmp_path, model, "bf16")
    assert heard.summary["mean_kl"] < 1e-6 and heard.summary["largest_share_of_allowed_error"] < 0.01
    assert (heard.summary["read_by"] == "transformers") == (family in READ_BY_TRANSFORMERS)


def test_bytes_are_the_same_twice_and_for_any_size_of_shards(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    models = [make_model(tmp_path / f"model{size}", max_shard_size=size) for size in ("1GB", "30KB", "100KB")]
    assert len(list(models[1].glob("*.safetensors"))) > 2
    outs = [exported(tmp_path / f"out{i}", model, "q4_1")[0] for i, model in enumerate([*models, models[0]])]
    assert len({out.read_bytes() for out in outs}) == 1
    assert folder_bytes(outs[0].parent) == folder_bytes(outs[3].parent)


def rows_of(file, name):
    """Bytes of a tensor, a row each."""
    return np.array(next(t.data for t in gguf.GGUFReader(file).tensors if t.name == name))


def unturned(_model, file, target):
    rows = rows_of(file, "blk.0.attn_q.weight")
    order = np.arange(len(rows)).reshape(2, -1, 2).swapaxes(1, 2).reshape(-1)
    return rewritten(file, target, tensors={"blk.0.attn_q.weight": rows[order]})


def other_scales(_model, file, target):
    rows = rows_of(file, "blk.1.ffn_down.weight")
    blocks = rows.reshape(len(rows), -1, 34).copy()
    blocks[:, :, :2] = np.roll(blocks[:, :, :2], 1, axis=1)
    return rewritten(file, target, tensors={"blk.1.ffn_down.weight": blocks.reshape(rows.shape)})


def other_layer(_model, file, target):
    other = make_model(target.parent / "other", seed=1, num_key_value_heads=1)
    there = exported(target.parent / "otherout", other, "q8_0")[0]
    names = [t.name for t in gguf.GGUFReader(file).tensors if t.name.startswith("blk.1.")]
    return rewritten(file, target, tensors={name: rows_of(there, name) for name in names})


def turned_embeddings(_model, file, target):
    return rewritten(
        file, target, tensors={"token_embd.weight": rows_of(file, "token_embd.weight")[::-1].copy()}
    )


def without_head(_model, file, target):
    return rewritten(file, target, tensors={"output.weight": None})


def doubled_norm(_model, file, target):
    return rewritten(file, target, tensors={"output_norm.weight": rows_of(file, "output_norm.weight") * 2})


def saying(**says):
    def change(_model, file, target):
        return rewritten(file, target, says={key.replace("__", "."): value for key, value in says.items()})

    return change


def twice_bos(model, file, target):
    template = (model / "chat_template.jinja").read_text()
    return rewritten(file, target, says={"tokenizer.chat_template": "{{ bos_token }}" + template})


def plain_marks(_model, file, target):
    kinds = gguf.GGUFReader(file).fields["tokenizer.ggml.token_type"].contents()
    return rewritten(file, target, says={"tokenizer.ggml.token_type": [1] * len(kinds)})


FAULTS = [
    (unturned, r"blk.0.attn_q.weight: its rows stand as transformers has them"),
    (other_scales, r"blk.1.ffn_down.weight: .* times as far off as Q8_0 may be"),
    (other_layer, r"blk.1.\w+.weight: .* times as far off as \w+ may be"),
    (turned_embeddings, r"token_embd.weight: its row \d+ is row \d+ of the model"),
    (without_head, r"output.weight: it is not there, .* the head is lost"),
    (doubled_norm, r"output_norm.weight: 2 in row 0, and 1 in the model"),
    (saying(tokenizer__chat_template=None), r"the chat template is not in the file"),
    (twice_bos, r"the file's chat template makes '<\|endoftext\|><\|endoftext\|>"),
    (saying(tokenizer__ggml__eos_token_id=5), r"<\|im_end\|> ends an answer, and is no stop token"),
    (plain_marks, r"BOS .* stands 0 times in a prompt of llama.cpp, and 1 times in training"),
    (saying(tokenizer__ggml__bos_token_id=1, tokenizer__ggml__add_bos_token=True), r"BOS .* stands 3 times"),
    (saying(tokenizer__ggml__pre="qwen2"), r"token \d+ of .* in llama.cpp, and .* in training"),
    (saying(llama__rope__freq_base=500.0), r"llama.rope.freq_base is 500.0 in the file, and 10000.0 in the model"),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "said"), FAULTS)
def test_a_planted_fault_is_caught_and_named(made, tmp_path, plant, said, monkeypatch):
    monkeypatch.setenv("PATH", "")
    model, file, _ = made
    folder = shutil.copytree(file.parent, tmp_path / "copy")
    broken = folder / file.name
    broken.unlink()
    plant(model, file, broken)
    with pytest.raises(UserError, match=said):
        prove_model(model, broken, "q8_0", tmp_path)


def test_a_copy_without_a_fault_is_proven(made, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    model, file, _ = made
    folder = shutil.copytree(file.parent, tmp_path / "copy")
    (folder / file.name).unlink()
    assert prove_model(model, rewritten(file, folder / file.name), "q8_0", tmp_path)["proof"] == "partial"


@pytest.mark.parametrize(
    ("factors", "said"), [(lambda rows: rows * 2, "its factors are not those"), (None, "is not in the file")]
)
def test_factors_of_the_rotation_are_those_of_the_model(tmp_path, factors, said, monkeypatch):
    monkeypatch.setenv("PATH", "")
    model = make_family(tmp_path / "model", "llama3")
    file, _ = exported(tmp_path, model, "f32")
    folder = shutil.copytree(file.parent, tmp_path / "copy")
    (folder / file.name).unlink()
    name = "rope_freqs.weight"
    change = {name: None if factors is None else factors(rows_of(file, name))}
    with pytest.raises(UserError, match=said):
        prove_model(model, rewritten(file, folder / file.name, tensors=change), "f32", tmp_path)


def test_bos_that_the_template_itself_doubles_is_refused(tmp_path):
    model = make_model_with_bos(tmp_path / "model")
    template = model / "chat_template.jinja"
    template.write_text("{{ bos_token }}" + template.read_text())
    with pytest.raises(UserError, match=r"BOS \(<\|endoftext\|>\) stands 2 times in a prompt"):
        exported(tmp_path, model, "q8_0")


def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(tmp_path):
    model = make_model(tmp_path / "model")
    path = model / "tokenizer.json"
    described = json.loads(path.read_text())
    # Words of two characters: merges go on where none of llama.cpp's ways would let them, and stop where all go on.
    described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "[a-z ]{2}"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ]}  # fmt: skip
    path.write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"llama.cpp knows no tokenizer that cuts texts by \[a-z \]\{2\}"):
        exported(tmp_path, model, "q8_0")


def no_pairs(described):
    described["model"] = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}


def lower_case(described):
    described["normalizer"] = {"type": "Lowercase"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (no_pairs, "it is a WordLevel, and no byte pair encoding. Take gguf out of export"),
        (lower_case, "it changes texts by Lowercase before it cuts them. Take gguf out of export"),
    ],
)
def test_a_tokenizer_that_its_file_shows_to_be_another_is_known_before_anything_runs(
    tmp_path, change, reason
):
    model = make_model(tmp_path / "model")
    path = model / "tokenizer.json"
    described = json.loads(path.read_text())
    config = TokenizerConfig(base_model=str(model), exports=[{"format": "gguf", "type": "q8_0"}])
    assert not list(config.faults())
    change(described)
    path.write_text(json.dumps(described))
    (fault,) = config.faults()
    assert fault.key == "exports" and fault.reason.endswith(reason)
    assert not list(TokenizerConfig(base_model=str(model)).faults())
    with pytest.raises(UserError, match=r"llama\.cpp does not know this tokenizer"):
        exported(tmp_path, model, "q8_0")


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_a_binding_that_does_not_start_leaves_a_good_file_as_it_is(tmp_path, monkeypatch):
    package = tmp_path / "node_modules" / "node-llama-cpp"
    (package / "dist").mkdir(parents=True)
    (package / "dist" / "index.js").write_text("throw new Error('built for another machine');")
    monkeypatch.setenv("NODE_PATH", str(package.parent))
    model = make_model_with_bos(tmp_path / "model")
    file, heard = exported(tmp_path / "out", model, "q8_0")
    assert file.is_file() and heard.summary["proof"] == "partial"
    assert f"{package} does not start" in heard.summary["proof_missing"]
    assert "built for another machine" in heard.summary["proof_missing"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_a_file_that_a_binding_starts_with_and_never_ends_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(llama_cpp_body, "SECONDS", 5)
    (tmp_path / "dist").mkdir()
    hangs = "export const getLlama = async () => ({ loadModel: () => new Promise(() => setInterval(() => {}, 1000)) });"
    (tmp_path / "dist" / "index.js").write_text(hangs)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    with pytest.raises(UserError, match=r"has not answered within 5 s what it was asked of model\.gguf"):
        llama_cpp_body.ask(tmp_path, tmp_path / "model.gguf", ["one"], tmp_path, vocabulary=8)


def test_the_tool_of_llama_cpp_is_in_the_key_of_what_it_makes(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    def key(kind):
        config = ExportedGgufConfig(type=kind)
        return key_document(Node("exported", EXPORTED_GGUF, config, {}, {}), {}, {})["libraries"]

    assert key("q4_k_m")["llama-quantize"] == "not installed" and "llama-quantize" not in key("q8_0")
    found = set()
    for number in (1, 2):
        tool = tmp_path / f"b{number}" / "llama-quantize"
        tool.parent.mkdir()
        tool.write_text(f"#!/bin/sh\necho {number}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tool.parent))
        found.add(key("q4_k_m")["llama-quantize"])
    assert len(found) == 2 and all(one.startswith("sha256:") for one in found)


def test_a_type_that_fits_no_row_is_refused(tmp_path):
    model = make_model(tmp_path / "model", hidden_size=48, intermediate_size=48)
    with pytest.raises(
        UserError, match=r"no matrix of the model can be stored in q8_0: 32 inputs .* 48 wide"
    ):
        exported(tmp_path, model, "q8_0")


def test_a_type_that_has_no_bound_is_named():
    with pytest.raises(UserError, match="llama-quantize has stored weights as TQ1_0"):
        allowed(np.ones(256), "TQ1_0")


def test_a_tool_that_fails_is_told_with_what_it_said(tmp_path, monkeypatch):
    tool = tmp_path / "llama-quantize"
    tool.write_text("#!/bin/sh\necho 'no such type' >&2\nexit 3\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="q4_k_m: llama-quantize failed with code 3:\nno such type"):
        quantize(tmp_path / "whole.gguf", tmp_path / "made.gguf", "q4_k_m")
