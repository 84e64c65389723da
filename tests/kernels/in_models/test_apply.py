"""Kernels in whole models: how modules are recognised, replaced and put back. Here the kernels run their references."""

import copy
from typing import Any

import pytest
import torch
from support.families import CONFIGS, assert_same_step, make_family, packed_batch, shake, step, with_lora
from support.interpreter import run_interpreted
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer

from tunemill.kernels.functions import rms_norm
from tunemill.kernels.in_models.apply import KERNELS, RESIDUAL, apply_kernels
from tunemill.kernels.in_models.modules import FusedAttention, FusedMlp, FusedNorm
from tunemill.stages.training.kernels.surroundings_body import PROBE, Transformers, use_kernels

BATCH = packed_batch(5, 4)
HEAD = "base_model.model.lm_head"


@pytest.mark.slow
def test_whole_models_under_the_interpreter() -> None:
    run_interpreted("apply", at_least=8, seconds=400)


@pytest.mark.slow
def test_more_whole_models_under_the_interpreter() -> None:
    run_interpreted("apply", at_least=9, seconds=400, slow=True)


@pytest.mark.slow
def test_adapters_under_the_interpreter() -> None:
    run_interpreted("apply_lora", at_least=11, seconds=300)


@pytest.mark.parametrize(
    ("family", "places", "refused"),
    [
        ("phi3", {"rms_norm": 3, "swiglu": 1, "linear_cross_entropy": 1}, {}),
        (
            "granite",
            {"rms_norm": 3, "rope": 1, "lora_qkv": 1, "lora_o": 1, "lora_mlp": 1, "linear_cross_entropy": 1},
            {},
        ),
        (
            "cohere",
            {"lora_qkv": 1, "lora_o": 1, "lora_mlp": 1, "linear_cross_entropy": 1},
            {"rope": "q as attention gets it differs"},
        ),
        (
            "glm",
            {"rms_norm": 3, RESIDUAL: 1, "lora_qkv": 1, "lora_o": 1, "swiglu": 1, "linear_cross_entropy": 1},
            {"rope": "q as attention gets it differs"},
        ),
        (
            "mixtral",
            {"rms_norm": 3, RESIDUAL: 1, "rope": 1, "lora_qkv": 1, "lora_o": 1, "linear_cross_entropy": 1},
            {},
        ),
        ("gpt2", {"linear_cross_entropy": 1}, {}),
    ],
)
def test_other_families(family: str, places: dict[str, int], refused: dict[str, str]) -> None:
    model = with_lora(make_family(family))
    plain = step(model, BATCH)
    applied = use_kernels(model, KERNELS)
    assert {name: len(found) for name, found in applied.places.items()} == places
    assert applied.refusals.keys() == refused.keys()
    for name, reason in refused.items():
        assert all(reason in given for given in applied.refusals[name].values())
    assert_same_step(step(model, BATCH), plain)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_without_adapters(family: str) -> None:
    model = make_family(family)
    plain = step(model, BATCH)
    assert use_kernels(model, KERNELS).places
    assert_same_step(step(model, BATCH), plain)


def test_a_residual_that_is_scaled_is_not_added_by_the_kernel() -> None:
    """Granite multiplies what a layer adds; with 1.0 it is Llama."""
    assert RESIDUAL not in use_kernels(make_family("granite"), ("rms_norm",)).places
    plain = make_family("granite", residual_multiplier=1.0)
    assert RESIDUAL in use_kernels(plain, ("rms_norm",)).places


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_that_is_trained_beside_the_adapter(tied: bool) -> None:
    saved = ["lm_head"] if tied else ["embed_tokens", "lm_head"]
    model = with_lora(make_family("llama", tie_word_embeddings=tied), modules_to_save=saved)
    plain = step(model, BATCH)
    assert f"{HEAD}.modules_to_save.default.weight" in plain[1]
    applied = use_kernels(model, KERNELS)
    assert applied.places["linear_cross_entropy"] == [f"{HEAD}.modules_to_save.default"]
    assert_same_step(step(model, BATCH), plain)


def test_tied_embeddings_are_trained_through_both() -> None:
    model = make_family("llama", tie_word_embeddings=True)
    plain = step(model, BATCH)
    use_kernels(model, KERNELS)
    assert_same_step(step(model, BATCH), plain)


def test_evaluation_gets_logits() -> None:
    model = make_family("gemma2")
    model.eval()
    with torch.no_grad():
        before = model(**BATCH, use_cache=False)
        model.train()
        applied = use_kernels(model, ("linear_cross_entropy", "geglu"))
        assert len(applied.places) == 2
        for mode in (False, True):
            after = model.train(mode)(**BATCH, use_cache=False)
            torch.testing.assert_close(after.logits, before.logits)
            torch.testing.assert_close(after.loss, before.loss)
    torch.testing.assert_close(model.eval()(**BATCH, use_cache=False).logits, before.logits)
    applied.undo()
    assert model.config.final_logit_softcapping == 2.0


def test_generation_with_a_cache_is_the_same() -> None:
    model = make_family("qwen3", num_hidden_layers=2)
    model.eval()
    prompt = BATCH["input_ids"][:, :4]
    before = model.generate(prompt, max_new_tokens=5, do_sample=False)
    use_kernels(model, KERNELS)
    assert torch.equal(model.generate(prompt, max_new_tokens=5, do_sample=False), before)


def test_modes_follow_the_model_and_survive_undoing() -> None:
    model = with_lora(make_family("llama"))
    applied = use_kernels(model, KERNELS)
    assert all(module.training for module in model.modules())
    model.eval()
    assert not any(module.training for module in model.modules())
    applied.undo()
    assert not any(module.training for module in model.modules())
    use_kernels(model, KERNELS)
    assert not any(module.training for module in model.modules())


def test_nothing_else_is_changed_by_proving() -> None:
    model = with_lora(make_family("llama"), lora_dropout=0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    use_kernels(model, KERNELS)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert PROBE not in ALL_ATTENTION_FUNCTIONS


def module_of(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


def test_a_linear_layer_that_does_more_is_called() -> None:
    """As in quantization-aware training: a subclass whose forward rounds the weight."""

    class Rounding(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight.round(decimals=1))

    model = make_family("llama")
    layer = model.model.layers[0]
    for parent, name in ((layer.mlp, "up_proj"), (layer.self_attn, "q_proj")):
        own = getattr(parent, name)
        made = Rounding(own.in_features, own.out_features, bias=False)
        made.weight = own.weight
        setattr(parent, name, made)
    plain = step(model, BATCH)
    applied = use_kernels(model, KERNELS)
    assert not module_of(model, FusedMlp)
    assert not module_of(model, FusedAttention)
    assert "no plain linear layer" in next(iter(applied.refusals["swiglu"].values()))
    assert "no plain linear layer" in next(iter(applied.refusals["rope"].values()))
    assert_same_step(step(model, BATCH), plain)


def test_hooks_go_on_running() -> None:
    model = make_family("llama")
    calls: list[str] = []

    def note(name: str) -> Any:
        return lambda *_: calls.append(name)

    layer = model.model.layers[0]
    watched = {
        "mlp": layer.mlp,
        "attention": layer.self_attn,
        "norm": layer.input_layernorm,
        "second norm": layer.post_attention_layernorm,
        "up": layer.mlp.up_proj,
    }
    for name, module in watched.items():
        module.register_forward_hook(note(name))
    use_kernels(model, KERNELS)
    calls.clear()
    step(model, BATCH)
    assert sorted(calls) == sorted(watched)


def test_a_norm_that_only_looks_like_one_stays() -> None:
    class AlmostNorm(nn.Module):
        def __init__(self, own: Any) -> None:
            super().__init__()
            self.weight, self.eps = own.weight, own.variance_epsilon

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 2 * self.eps)

    model = make_family("llama")
    model.model.norm = AlmostNorm(model.model.norm)
    use_kernels(model, ("rms_norm",))
    assert module_of(model, FusedNorm) == 2
    assert isinstance(model.model.norm, AlmostNorm)


def test_attention_that_looks_at_far_positions_stays() -> None:
    """As Ministral 3 and Llama 4, which scale queries behind some thousands of tokens."""

    class FarSighted(LlamaAttention):
        def forward(
            self, hidden_states: Any, position_embeddings: Any, attention_mask: Any, **settings: Any
        ) -> Any:
            far = 1.0 + 0.5 * (settings["position_ids"] > 40).to(hidden_states.dtype)
            return super().forward(
                hidden_states * far.unsqueeze(-1), position_embeddings, attention_mask, **settings
            )

    model = make_family("llama")
    put_attention(model, FarSighted)
    applied = use_kernels(model, KERNELS)
    assert "differs" in applied.refusals["rope"]["model.layers.0.self_attn"]
    assert "rope" not in applied.places


@pytest.mark.parametrize("signature", ["crossed", "keyword"])
def test_attention_that_is_called_in_another_way_stays(signature: str) -> None:
    class Crossed(LlamaAttention):
        def forward(self, hidden_states: Any, **settings: Any) -> Any:
            return super().forward(hidden_states, **settings)

    class Keyword(LlamaAttention):
        def forward(
            self, hidden_states: Any, position_embeddings: Any, attention_mask: Any, **settings: Any
        ) -> Any:
            return super().forward(
                hidden_states, position_embeddings, attention_mask, extra=object(), **settings
            )

    model = make_family("llama")
    put_attention(model, Crossed if signature == "crossed" else Keyword)
    plain = step(model, BATCH)
    applied = use_kernels(model, KERNELS)
    reason = "called in another way" if signature == "crossed" else "passes extra to attention"
    assert reason in applied.refusals["rope"]["model.layers.0.self_attn"]
    assert_same_step(step(model, BATCH), plain)


def put_attention(model: Any, kind: type[LlamaAttention]) -> None:
    """Another attention class with the weights of the model's own."""
    own = model.model.layers[0].self_attn
    made = kind(own.config, 0)
    made.load_state_dict(own.state_dict())
    model.model.layers[0].self_attn = made.train()


def test_attention_that_does_something_in_training_only_stays() -> None:
    class Dropping(LlamaAttention):
        def forward(
            self, hidden_states: Any, position_embeddings: Any, attention_mask: Any, **settings: Any
        ) -> Any:
            dropped = nn.functional.dropout(hidden_states, 0.5, self.training)
            return super().forward(dropped, position_embeddings, attention_mask, **settings)

    model = make_family("llama")
    put_attention(model, Dropping)
    applied = use_kernels(model, KERNELS)
    assert "in training differs" in applied.refusals["rope"]["model.layers.0.self_attn"]


def test_a_cap_of_logits_that_the_config_does_not_name_is_found() -> None:
    """At the size of an untrained model's logits a cap of 30 is lost in rounding."""
    model = make_family("llama")
    own = model.loss_function

    def capped_loss(logits: Tensor, labels: Tensor, **settings: Any) -> Any:
        return own(30.0 * torch.tanh(logits / 30.0), labels, **settings)

    model.loss_function = capped_loss
    plain = step(model, BATCH)
    applied = use_kernels(model, ("linear_cross_entropy",))
    assert "loss differs" in applied.refusals["linear_cross_entropy"]["the output head"]
    assert model.loss_function is capped_loss
    assert_same_step(step(model, BATCH), plain)


def test_a_norm_with_a_gate_stays() -> None:
    class GatedNorm(nn.Module):
        def __init__(self, own: Any) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = own.weight, own.variance_epsilon

        def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
            y: Tensor = (
                self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
            )
            return y if gate is None else y * gate

    model = make_family("llama")
    model.model.norm = GatedNorm(model.model.norm)
    assert len(use_kernels(model, ("rms_norm",)).places["rms_norm"]) == 2


def test_a_layer_whose_mlp_returns_more_stays() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, int]:
            return x, 1

    class Layer(LlamaDecoderLayer):
        def forward(self, hidden_states: Tensor, **settings: Any) -> Tensor:
            attended = self.self_attn(self.input_layernorm(hidden_states), **settings)[0] + hidden_states
            return attended + self.mlp(self.post_attention_layernorm(attended))[0]

    model = make_family("llama")
    made = Layer(model.config, 0)
    made.mlp = Pair()
    model.model.layers[0] = made
    plain = step(model, BATCH)
    assert RESIDUAL not in use_kernels(model, KERNELS).places
    assert_same_step(step(model, BATCH), plain)


def test_layers_are_still_found_by_class() -> None:
    model = make_family("llama")
    before = model(**BATCH, use_cache=False, output_hidden_states=True).hidden_states
    use_kernels(model, KERNELS)
    assert isinstance(model.model.layers[0], LlamaDecoderLayer)
    after = model(**BATCH, use_cache=False, output_hidden_states=True).hidden_states
    assert len(after) == len(before) == 2
    torch.testing.assert_close(after[-1], before[-1])


def test_a_forward_that_was_replaced_stays() -> None:
    model = make_family("llama")
    mlp = model.model.layers[0].mlp
    own = mlp.forward
    mlp.forward = lambda x: 2.0 * own(x)
    plain = step(model, BATCH)
    applied = use_kernels(model, KERNELS)
    assert set(applied.refusals["swiglu"].values()) == {"something else has replaced its forward"}
    assert_same_step(step(model, BATCH), plain)


def test_an_error_of_a_kernel_names_it_and_the_remedy() -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("no such instruction")

    model = make_family("llama")
    own = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(RuntimeError, match="no such instruction") as caught:
        apply_kernels(model, KERNELS | {"swiglu": broken}, Transformers())
    assert {name: type(module) for name, module in model.named_modules()} == own
    assert all(module.training for module in model.modules())
    assert any(
        "swiglu in model.layers.0.mlp" in note and "kernels: off" in note for note in caught.value.__notes__
    )


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("adapted", [True, False])
def test_both_forms_of_gelu(activation: str, adapted: bool) -> None:
    model = make_family("llama", hidden_act=activation)
    model = with_lora(model) if adapted else model
    plain = step(model, BATCH)
    kernel = "lora_mlp" if adapted else "geglu"
    assert kernel in use_kernels(model, ("lora_mlp", "geglu")).places
    assert_same_step(step(model, BATCH), plain)


def test_dropout_of_attention_is_that_of_the_model() -> None:
    steps = []
    for kernels in ((), ("rope",)):
        model = make_family("llama", attention_dropout=0.5)
        assert set(use_kernels(model, kernels).places) == set(kernels)
        torch.manual_seed(5)
        steps.append(step(model, BATCH))
    assert_same_step(steps[1], steps[0])
    assert abs(step(model, BATCH)[0] - steps[1][0]) > 1e-4, "another draw, another loss"


def test_an_attention_function_that_is_chosen_later_is_called() -> None:
    plain, fused = (make_family("llama").eval() for _ in range(2))
    use_kernels(fused, ("rope",))
    weights: list[Tensor] = []
    for model in (plain, fused):
        model.model.layers[0].self_attn.register_forward_hook(lambda *call: weights.append(call[2][1]))
        model.set_attn_implementation("eager")
        model(BATCH["input_ids"])
    torch.testing.assert_close(weights[1], weights[0])


def test_what_the_model_does_not_call_stays() -> None:
    model = make_family("llama")
    model.spare = copy.deepcopy(model.model.layers[0])
    refusals = use_kernels(model, ("rms_norm", "rope", "swiglu")).refusals
    assert refusals.keys() == {"rms_norm", "rope", "swiglu"}
    for refused in refusals.values():
        assert all(name.startswith("spare.") for name in refused)
        assert set(refused.values()) == {"the model did not call it"}


def test_a_parameter_that_attention_is_passed_is_passed_on() -> None:
    model = with_lora(make_family("gpt_oss"))
    plain = step(model, BATCH)
    assert set(use_kernels(model, ("lora_qkv", "lora_o")).places) == {"lora_qkv", "lora_o"}
    assert_same_step(step(model, BATCH), plain)


class OwnAttention(LlamaAttention):  # type: ignore[misc]
    """In this file there is no rotation."""


def test_attention_whose_rotation_is_not_found_stays() -> None:
    model = with_lora(make_family("llama"))
    model.base_model.model.model.layers[0].self_attn.__class__ = OwnAttention
    refused = use_kernels(model, ("lora_o",)).refusals["lora_o"]
    assert set(refused.values()) == {"its rotation of q and k is not found"}


def test_gradient_checkpointing_computes_a_fused_layer_twice() -> None:
    model = make_family("llama")
    assert RESIDUAL in use_kernels(model, ("rms_norm",)).places
    model.gradient_checkpointing_enable({"use_reentrant": False})
    calls: list[Any] = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *call: calls.append(call))
    step(model, BATCH)
    assert len(calls) == 2


def test_only_our_norm_adds_the_residual() -> None:
    def norm(x: Tensor, weight: Tensor, eps: float, *, offset: float) -> Any:
        return rms_norm.reference(x, weight, eps, offset=offset)

    applied = apply_kernels(make_family("llama"), {"rms_norm": norm}, Transformers())
    assert set(applied.places) == {"rms_norm"}


def test_layer_norm_of_another_library() -> None:
    model = make_family("gpt2")
    plain = step(model, BATCH)

    def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return nn.functional.layer_norm(x, weight.shape, weight, bias, eps)

    applied = apply_kernels(model, {"layer_norm": layer_norm}, Transformers())
    assert len(applied.places["layer_norm"]) == 3
    assert_same_step(step(model, BATCH), plain)


def test_training_with_kernels_goes_where_training_without_goes() -> None:
    """Ten steps of SGD, so that errors would add up."""
    trained = []
    for kernels in ((), KERNELS):
        model = with_lora(make_family("qwen2"))
        use_kernels(model, kernels)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(10):
            model(**BATCH, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        trained.append(step(model, BATCH))
    untrained = with_lora(make_family("qwen2"))
    shake(untrained, only="nothing")
    assert trained[0][0] < step(untrained, BATCH)[0]
    assert_same_step(trained[1], trained[0], 1e-4)


def test_kernels_do_not_go_in_twice() -> None:
    model = make_family("llama")
    applied = use_kernels(model, KERNELS)
    with pytest.raises(AssertionError, match="undo the kernels in it first"):
        use_kernels(model, KERNELS)
    applied.undo()
    assert use_kernels(model, KERNELS).places == applied.places
