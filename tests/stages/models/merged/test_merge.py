"""Folding adapters in: the merged model is base and adapter, to the last tensor."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.tiny_model import VOCABULARY, Heard, folder_bytes, make_model, workspace
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import UserError
from tunemill.stages.models.merged.body import merge
from tunemill.stages.models.merged.config import MergedConfig

IDS = torch.arange(3, 60).reshape(3, 19)


def make_adapter(folder: Path, base: Path, *, spread: float = 0.2, **lora: Any) -> Adapter:
    """An adapter written by PEFT itself, with every weight of it drawn at random."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    torch.manual_seed(5)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    peft_model = get_peft_model(model, LoraConfig(**{**settings, **lora}))
    with torch.no_grad():
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * spread)
    # Beside an adapter on the embeddings PEFT would store them whole as well; the trained stage does not.
    peft_model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    make_tokenizer(folder)
    return Adapter(folder)


def run(folder: Path, base: Path, adapter: Adapter) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    merge(
        MergedConfig(),
        base_model=Model(base),
        quantized_base=None,
        adapter=adapter,
        out=out,
        report=heard.report,
    )
    return out.data, heard


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS).logits.float()
    return found


def check(tmp_path: Path, base: Path, adapter: Adapter, tolerance: float = 1e-4) -> tuple[Path, Heard]:
    """Merge, and compare with PEFT and with the base on tokens that the body does not look at."""
    data, heard = run(tmp_path / "out", base, adapter)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    before = logits(plain)
    expected = logits(PeftModel.from_pretrained(plain, adapter.path))
    found = logits(AutoModelForCausalLM.from_pretrained(data, dtype="auto"))
    assert float((found - expected).abs().max()) < tolerance * float(expected.abs().max())
    assert float((found - before).abs().max()) > 10 * tolerance * float(expected.abs().max())
    assert heard.summary["max_abs_logit_difference"] <= heard.summary["logit_tolerance"]
    assert heard.summary["max_abs_logit_change"] > heard.summary["max_abs_logit_difference"]
    return data, heard


def test_merged_is_base_and_adapter(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base)
    data, heard = check(tmp_path, base, adapter)
    assert heard.summary["changed_tensors"] == 4
    assert (
        heard.summary["adapter_tensors_used"]
        == len(load_file(adapter.path / "adapter_model.safetensors"))
        == 8
    )
    old, new = load_file(base / "model.safetensors"), load_file(data / "model.safetensors")
    assert {name for name in old if not torch.equal(old[name], new[name])} == {
        f"model.layers.{layer}.{module}.weight"
        for layer in (0, 1)
        for module in ("self_attn.q_proj", "mlp.down_proj")
    }
    stored = load_file(adapter.path / "adapter_model.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    a, b = (stored[f"base_model.model.{name}.lora_{factor}.weight"] for factor in "AB")
    torch.testing.assert_close(new[f"{name}.weight"], old[f"{name}.weight"] + 2 * b @ a)
    assert sorted(path.name for path in data.iterdir()) == [
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert AutoTokenizer.from_pretrained(data).chat_template is not None


def test_one_shard_or_several_and_twice(tmp_path: Path) -> None:
    one = make_model(tmp_path / "one")
    several = make_model(tmp_path / "several", max_shard_size="60KB")
    adapter = make_adapter(tmp_path / "adapter", one)
    from_one, _ = run(tmp_path / "out1", one, adapter)
    from_several, heard = run(tmp_path / "out2", several, adapter)
    again, _ = run(tmp_path / "out3", several, adapter)
    assert folder_bytes(from_several) == folder_bytes(again)
    shards = sorted(from_several.glob("*.safetensors"))
    assert [path.name for path in shards] == sorted(path.name for path in several.glob("*.safetensors"))
    assert len(shards) > 2 and heard.of("progress")[-1]["done"] == len(shards)
    merged = {name: tensor for path in shards for name, tensor in load_file(path).items()}
    expected = load_file(from_one / "model.safetensors")
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name]) for name in expected)
    index = "model.safetensors.index.json"
    assert (from_several / index).read_bytes() == (several / index).read_bytes()
    with (
        safe_open(from_one / "model.safetensors", "pt") as found,
        safe_open(one / "model.safetensors", "pt") as base,
    ):
        assert found.metadata() == base.metadata()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03), (torch.float16, 0.005)], ids=str
)
def test_types(tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    base = make_model(tmp_path / "base", dtype=dtype)
    data, _ = check(tmp_path, base, make_adapter(tmp_path / "adapter", base), tolerance)
    assert {tensor.dtype for tensor in load_file(data / "model.safetensors").values()} == {dtype}


@pytest.mark.parametrize(
    "lora",
    [
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"0.self_attn.q_proj": 32, "down_proj": 3}},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"target_modules": r".*layers\.1\..*_proj"},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens", "norm"], "target_modules": "all-linear"},
        {"layers_to_transform": [1]},
        {"init_lora_weights": "gaussian"},
    ],
    ids=str,
)
def test_kinds_of_adapters(tmp_path: Path, lora: dict[str, Any]) -> None:
    base = make_model(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base, **lora)
    _, heard = check(tmp_path, base, adapter)
    assert heard.summary["adapter_tensors_used"] == len(load_file(adapter.path / "adapter_model.safetensors"))


def test_saved_modules_replace_those_of_the_base(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(tmp_path / "adapter", base, modules_to_save=["lm_head"])
    data, heard = check(tmp_path, base, adapter, tolerance=0.03)
    saved = load_file(adapter.path / "adapter_model.safetensors")["base_model.model.lm_head.weight"]
    assert torch.equal(load_file(data / "model.safetensors")["lm_head.weight"], saved.to(torch.bfloat16))
    assert heard.summary["changed_tensors"] == 5


@pytest.mark.parametrize("shard_size", ["1GB", "60KB"])
@pytest.mark.parametrize(
    ("lora", "comes_apart"),
    [
        ({}, False),
        ({"modules_to_save": ["embed_tokens"]}, True),
        ({"modules_to_save": ["lm_head"]}, True),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, True),
        ({"target_modules": ["lm_head"]}, True),
    ],
    ids=str,
)
def test_tied_embeddings(tmp_path: Path, lora: dict[str, Any], comes_apart: bool, shard_size: str) -> None:
    base = make_model(tmp_path / "base", tie_word_embeddings=True, max_shard_size=shard_size)
    data, heard = check(tmp_path, base, make_adapter(tmp_path / "adapter", base, **lora))
    config = json.loads((data / "config.json").read_text())
    assert config["tie_word_embeddings"] is not comes_apart
    again, _ = run(tmp_path / "again", base, Adapter(tmp_path / "adapter"))
    assert folder_bytes(data) == folder_bytes(again)
    assert bool(heard.of("log")) is comes_apart


def test_weights_stored_in_by_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.2,
        eos_token_id=2,
    )
    base = tmp_path / "base"
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    # c_attn is 32 by 96, attn.c_proj square: only the config tells how that one lies.
    adapter = make_adapter(
        tmp_path / "adapter", base, target_modules=["c_attn", "attn.c_proj"], fan_in_fan_out=True
    )
    check(tmp_path, base, adapter)


def change_config(adapter: Adapter, **changes: Any) -> None:
    path = adapter.path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "adapter: .*: no magnitude, and use_dora of its config is true"),
        ({"lora_bias": True}, "adapter: lora_bias: cannot"),
        ({"bias": "all"}, "adapter: bias: cannot"),
        ({"a_new_kind": 1}, "adapter: a_new_kind: cannot"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa changed the base"),
        ({"peft_type": "IA3"}, "peft_type IA3 cannot be folded in"),
    ],
)
def test_what_cannot_be_folded_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    base = make_model(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base)
    change_config(adapter, **changes)
    with pytest.raises(UserError, match=message):
        run(tmp_path / "out", base, adapter)


def change_weights(adapter: Adapter, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, adapter.path / "adapter_model.safetensors", metadata={"format": "pt"})


def test_every_tensor_must_have_its_place(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base)
    stored = load_file(adapter.path / "adapter_model.safetensors")
    first = min(stored)
    change_weights(adapter, {name: tensor for name, tensor in stored.items() if name != first})
    with pytest.raises(UserError, match=r"only .* of its two factors. It is incomplete"):
        run(tmp_path / "out1", base, adapter)
    change_weights(adapter, {name.replace("layers.1", "layers.9"): tensor for name, tensor in stored.items()})
    with pytest.raises(
        UserError, match=r"model.layers.9.mlp.down_proj.lora_A.weight, .*not in both the adapter and the base"
    ):
        run(tmp_path / "out2", base, adapter)
    change_weights(adapter, {**stored, "odd": torch.ones(1)})
    with pytest.raises(UserError, match="odd: not a tensor of a LoRA adapter"):
        run(tmp_path / "out3", base, adapter)


def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base, spread=0)
    with pytest.raises(UserError, match="the adapter changes no tensor of the base: it was not trained"):
        run(tmp_path / "out", base, adapter)


def test_an_effect_below_the_rounding_of_the_base_is_told(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", dtype=torch.bfloat16)
    faint = make_adapter(tmp_path / "faint", base, spread=0)
    stored = load_file(faint.path / "adapter_model.safetensors")
    # PEFT draws A and leaves B at 0.
    change_weights(faint, {n: t + 2e-5 if "lora_B" in n else t for n, t in stored.items()})
    _, heard = run(tmp_path / "out", base, faint)
    assert any("effect is lost in the rounding" in event["message"] for event in heard.of("log"))
    strong = make_adapter(tmp_path / "strong", base)
    _, heard = run(tmp_path / "strong_out", base, strong)
    assert not any("effect is lost" in event["message"] for event in heard.of("log"))


def test_a_merged_model_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(tmp_path / "adapter", base)
    weights = load_file(base / "model.safetensors")
    mlp = "model.layers.1.mlp"
    for part in ("gate_proj", "up_proj"):
        weights[f"{mlp}.{part}.weight"][1] = weights[f"{mlp}.{part}.weight"][0]
    weights[f"{mlp}.down_proj.weight"][:, :2] *= 20
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    # The first two inputs of down_proj are equal, and the adapter adds much of one and takes as much of the other: that
    # is nothing, but beside it there is no room in bfloat16 for the weights themselves.
    stored = load_file(adapter.path / "adapter_model.safetensors")
    a, b = (stored[f"base_model.model.{mlp}.down_proj.lora_{factor}.weight"] for factor in "AB")
    a.zero_()[0, :2] = torch.tensor([1, -1])
    b.fill_(2000)
    change_weights(adapter, stored)
    with pytest.raises(UserError, match=r"model.layers.1 computes something else than with base and adapter"):
        run(tmp_path / "out", base, adapter)
