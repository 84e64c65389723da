"""llama.cpp itself reads the files: same tokens, same greedy answers, stops where it should, near in what it says."""

import os
import shutil

import pytest
import torch
from stages.models.exported_gguf.adapters import make_adapter
from support.gguf_files import CONFIGS, exported, make_family, rewritten
from support.llama_cpp import build_llama_quantize, node_modules
from support.variants import first_in_ci, kept_in_ci

from tunemill.stages.errors import UserError
from tunemill.stages.models.exported_gguf.body import quantize
from tunemill.stages.models.exported_gguf.llama_cpp_body import ask, find_engine
from tunemill.stages.models.exported_gguf.proof_body import COMPUTED, prove_by_llama_cpp
from tunemill.stages.models.exported_gguf.proof_logits_body import PLACES, probes, reference_logits
from tunemill.stages.models.exported_gguf.proof_weights_body import check_weights
from tunemill.stages.models.exported_gguf.proof_words_body import check_words
from tunemill.stages.models.exported_gguf.spoken_body import rendered_prompts
from tunemill.stages.models.gguf_reading_body import read_file
from tunemill.stages.models.loading_body import load_causal_lm
from tunemill.stages.models.probe_body import logits_of
from tunemill.stages.models.words_body import load_words

pytestmark = pytest.mark.slow
LONGEST, TIE = 12, 0.02


@pytest.fixture(scope="module", autouse=True)
def packages(tmp_path_factory):
    """The folder of node-llama-cpp, known to node for as long as the module runs."""
    found = node_modules(tmp_path_factory.mktemp("node"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODE_PATH", str(found))
        yield found


@pytest.mark.parametrize("family", kept_in_ci(CONFIGS, "llama", "gemma3"))
def test_a_family_is_computed_as_transformers_does(tmp_path, family):
    model = make_family(tmp_path / "model", family)
    file, heard = exported(tmp_path, model, "f32")
    assert heard.summary["proof"] == "full" and heard.summary["llama_cpp_mean_kl"] < COMPUTED / 10
    prompts = rendered_prompts(load_words(model))
    vocabulary = CONFIGS[family].vocab_size
    told = ask(find_engine(), file, prompts, tmp_path, vocabulary=vocabulary, longest=LONGEST)
    plain = load_causal_lm(model, dtype=torch.float32).eval()
    for text in told.texts:
        logits_lv = logits_of(plain, torch.tensor([text.ids + text.written]))[0, len(text.ids) - 1 : -1]
        chosen = logits_lv.gather(-1, torch.tensor(text.written)[:, None])[:, 0]
        # llama.cpp keeps keys and values in 16 bits: among equals it may take another.
        assert text.written and float((logits_lv.max(-1).values - chosen).max()) < TIE


def test_a_long_prompt_is_compared_at_its_end(tmp_path):
    model = make_family(tmp_path / "model", "llama")
    template = model / "chat_template.jinja"
    template.write_text("<|im_start|>system\n" + "Be terse. " * 100 + "<|im_end|>\n" + template.read_text())
    words = load_words(model)
    prompts = rendered_prompts(words)
    assert all(len(words.encode(text)) > PLACES for text in prompts)
    _, heard = exported(tmp_path, model, "f32")
    assert heard.summary["llama_cpp_tokens_compared"] == PLACES * len(prompts)
    assert heard.summary["llama_cpp_mean_kl"] < COMPUTED


@pytest.mark.parametrize("kind", kept_in_ci(["q8_0", "q5_1", "q4_0", "mxfp4"], "q8_0", "mxfp4"))
def test_a_type_is_computed_within_its_bound(tmp_path, kind):
    model = make_family(tmp_path / "model", "qwen2", dtype=torch.bfloat16)
    _, heard = exported(tmp_path, model, kind)
    summary = heard.summary
    assert summary["proof"] == "full" and summary["llama_cpp_mean_kl"] < summary["largest_kl"]
    assert summary["llama_cpp_mean_kl"] == pytest.approx(summary["mean_kl"], abs=0.1)


@pytest.mark.parametrize("family", first_in_ci("llama", "qwen3", "gemma", "gemma3"))
def test_an_adapter_beside_its_base_says_what_peft_says(tmp_path, family):
    base = make_family(tmp_path / "base", family)
    adapter = make_adapter(tmp_path / "adapter", base, use_rslora=True)
    _, heard = exported(tmp_path, base, "f32", adapter)
    summary = heard.summary
    assert summary["proof"] == "full"
    assert summary["llama_cpp_mean_kl"] < COMPUTED / 5 < summary["mean_kl_without_adapter"]


def test_types_with_a_k_are_made_by_llama_cpps_own_tool(packages, tmp_path, monkeypatch):
    built = build_llama_quantize(packages, tmp_path / "tool")
    monkeypatch.setenv("PATH", f"{built}{os.pathsep}{os.environ['PATH']}")
    model = make_family(tmp_path / "model", "llama", hidden_size=256, intermediate_size=512)
    files = [exported(tmp_path / name, model, "q4_k_m") for name in ("one", "two")]
    assert files[0][0].read_bytes() == files[1][0].read_bytes()
    summary = files[0][1].summary
    assert summary["proof"] == "full" and summary["bytes_after"] < 0.3 * summary["bytes_before"]
    assert summary["llama_quantize"].startswith("version: ")
    kinds = {read_file(files[0][0]).kind(name) for name in read_file(files[0][0]).tensors}
    assert {"Q4_K", "Q6_K"} <= kinds
    _, finer = exported(tmp_path / "finer", model, "q6_k")
    assert finer.summary["llama_cpp_mean_kl"] < summary["llama_cpp_mean_kl"]
    # What tools of before v0.5.0 store in place of q2_k and q3_k where rows are no multiple of 256.
    plain, other = exported(tmp_path / "plain", model, "f32")[0], tmp_path / "other.gguf"
    quantize(plain, other, "iq4_nl")
    assert "IQ4_NL" in {read_file(other).kind(name) for name in read_file(other).tensors}
    assert check_weights(model, read_file(other), "q3_k_m").used <= 1


FAULTS = [
    ({"tokenizer.ggml.pre": "refact"}, "llama.cpp makes the tokens"),
    ({"tokenizer.ggml.merges": None}, "does not run"),
    ({"llama.rope.freq_base": 100.0}, "read by llama.cpp, the file is .* nats a token from the model"),
]


@pytest.mark.parametrize(("says", "said"), FAULTS)
def test_what_only_llama_cpp_sees_is_caught(tmp_path, says, said):
    model = make_family(tmp_path / "model", "llama")
    file, _ = exported(tmp_path, model, "f32")
    spoken = check_words(load_words(model), model, read_file(file))
    wanted = reference_logits(model, probes(416, [prompt.ids for prompt in spoken.prompts]))[1:]
    folder = shutil.copytree(file.parent, tmp_path / "copy")
    (folder / file.name).unlink()
    broken = rewritten(file, folder / file.name, says=says)
    with pytest.raises(UserError, match=said):
        prove_by_llama_cpp(find_engine(), read_file(broken), "f32", spoken, wanted, tmp_path)
