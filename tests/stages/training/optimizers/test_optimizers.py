"""Every optimizer: what it takes is what its class takes, it is the one of transformers, and it goes on exactly."""

import inspect
import io
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from support.tiny_model import tiny_config
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from tunemill.stages.errors import SettingError
from tunemill.stages.training.estimate_body import optimizer_bytes
from tunemill.stages.training.machine_body import Precision
from tunemill.stages.training.optimizers.build_body import (
    build_optimizer,
    check_optimizer_here,
    loading_allowed,
    settings_of,
)
from tunemill.stages.training.optimizers.groups_body import embedding_parameters, parameter_groups
from tunemill.stages.training.optimizers.state_bytes import state_bytes
from tunemill.stages.training.optimizers.table import EXTRAS, OPTIMIZERS, OUT_OF_REACH
from tunemill.stages.training.sft.config import SftConfig

TARGETS = {"optim_target_modules": ["q_proj", "down_proj"]}
PLAIN = Precision(torch.float32)


def is_installed(name: str) -> bool:
    return find_spec(OPTIMIZERS[name].made_by.partition(":")[0].partition(".")[0]) is not None


HERE = [name for name in OPTIMIZERS if is_installed(name)]
RUN_HERE = [name for name in HERE if not OPTIMIZERS[name].needs_gpu]


@pytest.fixture(autouse=True, scope="module")
def not_compiled() -> Iterator[None]:
    # torchao compiles its step, for seconds.
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


def config(name: str, **settings: Any) -> SftConfig:
    beside = TARGETS if OPTIMIZERS[name].targets else {}
    return SftConfig(
        **{"learning_rate": 1e-2, "optimizer": name, "lr_scheduler": "constant", **beside, **settings}
    )


def model() -> Any:
    # Large enough for states of 8 bits: smaller tensors keep 32.
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        tiny_config(num_hidden_layers=1, hidden_size=64, intermediate_size=96)
    )


def decayed(made: Any) -> list[str]:
    return [name for name, _ in made.named_parameters() if "norm" not in name]


def build(name: str, made: Any, **settings: Any) -> Any:
    return build_optimizer(config(name, **settings), made, decayed(made), warmup=2)


def steps(made: Any, optimizer: Any, numbers: range) -> None:
    for number in numbers:
        if callable(getattr(optimizer, "train", None)):
            optimizer.train()
        ids = torch.randint(3, 400, (2, 8), generator=torch.Generator().manual_seed(number))
        made(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_every_name_of_transformers_is_known() -> None:
    known = {*OPTIMIZERS, *OUT_OF_REACH}
    assert {name.value for name in OptimizerNames} <= known
    assert not set(OPTIMIZERS) & set(OUT_OF_REACH)


@pytest.mark.parametrize("name", HERE)
def test_the_class_takes_what_the_table_says(name: str) -> None:
    entry = OPTIMIZERS[name]
    module, _, kind = entry.made_by.partition(":")
    signature = inspect.signature(getattr(import_module(module), kind)).parameters
    if not any(one.kind == inspect.Parameter.VAR_KEYWORD for one in signature.values()):
        own = {argument for argument in entry.takes if not (entry.betas and argument.startswith("beta"))}
        assert own | set(entry.fixed) | set(entry.without_gpu) <= set(signature)
    if name != "muon":
        # A setting of Adam's that the class has is one that the YAML can set.
        assert bool(entry.betas) == ("betas" in signature)
        assert not entry.eps or isinstance(signature["eps"].default, tuple) == (len(entry.eps) > 1)
    assert "weight_decay" in signature


@pytest.mark.parametrize("name", RUN_HERE)
def test_goes_on_exactly_from_its_state(name: str) -> None:
    whole = model()
    optimizer = build(name, whole, weight_decay=0.1)
    start = {key: tensor.clone() for key, tensor in whole.named_parameters()}
    steps(whole, optimizer, range(3))
    kept = io.BytesIO()
    torch.save((whole.state_dict(), optimizer.state_dict()), kept)
    steps(whole, optimizer, range(3, 6))
    moved = [key for key, tensor in whole.named_parameters() if not torch.equal(tensor, start[key])]
    assert moved == list(start)
    assert all(torch.isfinite(tensor).all() for tensor in whole.parameters())

    kept.seek(0)
    with loading_allowed(name):
        weights, state = torch.load(kept, weights_only=OPTIMIZERS[name].keeps_state)
    resumed = model()
    resumed.load_state_dict(weights)
    optimizer = build(name, resumed, weight_decay=0.1)
    optimizer.load_state_dict(state)
    steps(resumed, optimizer, range(3, 6))
    exact = all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert exact == OPTIMIZERS[name].keeps_state


# Where we differ on purpose: transformers forgets weight_decay, and Adam's settings for GaLore and GrokAdamW.
OURS = {"muon", "grokadamw", "ao_adamw_4bit", "ao_adamw_8bit", "ao_adamw_fp8", "optimi_adamw", "came_pytorch",
        "adopt_adamw", "adamc", *(name for name in OPTIMIZERS if OPTIMIZERS[name].targets)}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in RUN_HERE if name not in OURS])
def test_is_the_optimizer_of_transformers(name: str, tmp_path: Any) -> None:
    made = model()
    settings = {"optim": name, "weight_decay": 0.1, "learning_rate": 1e-2, "warmup_steps": 2}
    theirs = Trainer(made, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **settings))
    expected, found = theirs.create_optimizer(), build(name, made, weight_decay=0.1)
    assert type(found) is type(expected)
    for ours, other in zip(found.param_groups, expected.param_groups, strict=True):
        assert [id(one) for one in ours["params"]] == [id(one) for one in other["params"]]
        differing = {key for key in other if key != "params" and ours[key] != other[key]}
        # optimi's kernels need a GPU, and it tries to use them without one.
        assert differing <= {"triton"}


def test_layerwise_steps_as_the_optimizer_that_waits() -> None:
    if not is_installed("galore_adamw"):
        pytest.skip("galore-torch is not installed")
    waiting, eager = model(), model()
    steps(waiting, build("galore_adamw", waiting, max_grad_norm=0), range(4))
    steps(eager, build("galore_adamw_layerwise", eager), range(4))
    for a, b in zip(waiting.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_step_of_sgd_by_hand() -> None:
    made = model()
    weight = made.model.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    optimizer = build("sgd", made, weight_decay=0.5)
    ids = torch.arange(3, 11)[None]
    made(input_ids=ids, labels=ids).loss.backward()
    gradient = weight.grad.clone()
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before - 1e-2 * (gradient + 0.5 * before))


def test_muon_takes_matrices_and_adamw_the_rest() -> None:
    made = model()
    optimizer = build("muon", made, weight_decay=0.1, adam_beta1=0.5)
    muon, adam = optimizer.parts
    assert type(muon) is torch.optim.Muon and type(adam) is torch.optim.AdamW
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    with_muon = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert with_muon == {name for name in names.values() if "_proj" in name}
    assert {group["betas"] for group in adam.param_groups} == {(0.5, 0.999)}
    assert {group["weight_decay"] for group in muon.param_groups} == {0.1}
    # A schedule sets the learning rate of all.
    for group in optimizer.param_groups:
        group["lr"] = 7.0
    assert all(group["lr"] == 7.0 for part in optimizer.parts for group in part.param_groups)


def test_embeddings_keep_a_state_of_32_bits() -> None:
    made = model()
    optimizer = build("adamw_bnb_8bit", made)
    steps(made, optimizer, range(1))
    dtypes = {
        name: optimizer.state[one]["state1"].dtype for name, one in made.named_parameters() if one.ndim == 2
    }
    assert dtypes["model.embed_tokens.weight"] == torch.float32
    assert dtypes["model.layers.0.mlp.up_proj.weight"] == torch.uint8


def test_settings_of_adam_reach_every_optimizer_that_has_them() -> None:
    came = config("came_pytorch", adam_beta1=0.1, adam_beta3=0.3, adam_epsilon=1e-5, adam_epsilon2=1e-6)
    found = settings_of(came, OPTIMIZERS["came_pytorch"], 0)
    assert found["betas"] == (0.1, 0.999, 0.3) and found["eps"] == (1e-5, 1e-6)
    mixed = config("ademamix", adam_beta2=0.2, optim_args="beta3=0.7, eps=1e-3, alpha=2, t_alpha=9")
    found = settings_of(mixed, OPTIMIZERS["ademamix"], 0)
    assert found["betas"] == (0.9, 0.2, 0.7) and found["eps"] == 1e-3
    assert (found["alpha"], found["t_alpha"]) == (2.0, 9)
    for name, entry in OPTIMIZERS.items():
        if entry.betas:
            assert settings_of(config(name, adam_beta1=0.25), entry, 0)["betas"] == (0.25, *entry.betas[1:])
        if entry.eps:
            eps = settings_of(config(name, adam_epsilon=0.25), entry, 0)["eps"]
            assert (eps[0] if isinstance(eps, tuple) else eps) == 0.25


def test_target_modules_are_groups_of_their_own() -> None:
    made = model()
    settings = config("galore_adamw", optim_args={"rank": "4"}, weight_decay=0.1)
    groups = parameter_groups(settings, OPTIMIZERS["galore_adamw"], made, decayed(made))
    targets = [group for group in groups if "rank" in group and group["params"]]
    assert [(len(group["params"]), group["rank"], group["weight_decay"]) for group in targets] == [
        (2, 4, 0.1)
    ]
    assert sum(len(group["params"]) for group in groups) == len(list(made.parameters()))
    everything = config("galore_adamw", optim_target_modules="all_linear")
    (linear,) = [
        group["params"]
        for group in parameter_groups(everything, OPTIMIZERS["galore_adamw"], made, decayed(made))
        if "rank" in group and group["params"]
    ]
    assert len(linear) == 8
    with pytest.raises(SettingError, match="no linear layer that is trained"):
        parameter_groups(
            config("galore_adamw", optim_target_modules=["nope"]),
            OPTIMIZERS["galore_adamw"],
            made,
            decayed(made),
        )


def test_the_embeddings_are_found_in_any_model() -> None:
    made = model()
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    found = [names[id(one)] for one in embedding_parameters(made)]
    assert found == ["model.embed_tokens.weight", "lm_head.weight"]


def test_what_this_machine_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match="needs a GPU"):
        check_optimizer_here("flash_adamw", PLAIN)
    for name in set(OPTIMIZERS) - set(HERE):
        if not OPTIMIZERS[name].needs_gpu:
            with pytest.raises(SettingError, match=rf"tunemill\[{OPTIMIZERS[name].extra}\]"):
                check_optimizer_here(name, PLAIN)
    with pytest.raises(SettingError, match="needs scaled ones"):
        check_optimizer_here("lomo", Precision(torch.float32, fp16=True))
    check_optimizer_here("paged_adamw_8bit", PLAIN)


def test_every_package_has_an_extra() -> None:
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    always = " ".join(project["dependencies"])
    for entry in OPTIMIZERS.values():
        if entry.extra is None:
            assert entry.library in always
        else:
            (requirement,) = project["optional-dependencies"][entry.extra]
            assert requirement.startswith(entry.library)
    assert set(EXTRAS) == {entry.library for entry in OPTIMIZERS.values() if entry.extra}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "dion"}, "dion cannot be had: Dion is in no package"),
        ({"optimizer": "sgd", "adam_beta1": 0.8}, "adam_beta1: optimizer sgd has no such setting"),
        ({"optimizer": "lion_8bit", "adam_epsilon": 1e-6}, "adam_epsilon: optimizer lion_8bit has no"),
        ({"optimizer": "adamw_torch", "adam_beta3": 0.9}, "adam_beta3: optimizer adamw_torch has no"),
        ({"optimizer": "sgd", "optim_args": {"momentun": 0.9}}, "nesterov there. Did you mean momentum"),
        ({"optimizer": "sgd", "optim_args": {"momentum": "fast"}}, "momentum: must be a number .given: 'fast'"),
        ({"optimizer": "sgd", "optim_args": {"nesterov": 2}}, "nesterov: must be true or false"),
        ({"optimizer": "muon", "optim_args": {"ns_steps": 2.5}}, "ns_steps: must be a whole number"),
        ({"optimizer": "muon", "optim_args": {"lr": 2.5}}, "The key for it is learning_rate"),
        ({"optimizer": "ademamix", "optim_args": {"beta3": 0.9}, "adam_beta3": 0.9}, "are one setting"),
        ({"optimizer": "galore_adamw"}, "galore_adamw needs optim_target_modules"),
        ({"optimizer": "lomo", "max_grad_norm": 1.0}, "none is left to shorten"),
        ({"optimizer": "lomo", "gradient_accumulation_steps": 2}, "cannot be added up"),
        ({"optimizer": "lomo", "fp16": True, "bf16": False}, "cannot be scaled for float16"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_are_refused_with_the_reason(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SftConfig(learning_rate=1e-3, **settings)


def test_notes() -> None:
    def idle(**settings: Any) -> set[str]:
        return {item.key for item in SftConfig(learning_rate=1e-3, **settings).idle()}

    assert idle(optim_target_modules=["a"]) == {"optim_target_modules"}
    assert idle(optimizer="grokadamw", save_steps=2) == {"save_steps"}
    assert idle(optimizer="grokadamw", save_strategy="no") == set()
    assert [item.key for item in SftConfig(learning_rate=1e-3, optimizer="flash_lion").needs_gpu()] == [
        "optimizer"
    ]


def test_the_library_enters_the_key() -> None:
    assert "bitsandbytes" in config("paged_lion_8bit").used_libraries()
    assert "galore-torch" in config("galore_adamw").used_libraries()


def test_a_schedule_free_optimizer_warms_up_by_itself_or_by_the_schedule() -> None:
    assert config("schedule_free_adamw", warmup_steps=3).optimizers_warmup
    assert not config("schedule_free_adamw", lr_scheduler="cosine", warmup_steps=3).optimizers_warmup


def bytes_of(state: Any) -> int:
    """Bytes of all tensors: of packed ones those of what they are made of, of numbers beside them none."""
    found = {}
    for tensor in tree_leaves(state):
        if isinstance(tensor, torch.Tensor) and tensor.numel() > 1:
            names = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
            # The table of an 8-bit format is one for all.
            for part in [getattr(tensor, name) for name in names] or [tensor]:
                found[part.data_ptr()] = part.numel() * part.element_size()
    return sum(found.values())


def tensors_in(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return [tensor for value in item.values() for tensor in tensors_in(value)]
    if isinstance(item, list | tuple):
        return [tensor for value in item for tensor in tensors_in(value)]
    inside = vars(item).get("ortho_matrix") if hasattr(item, "ortho_matrix") else item
    return [inside] if isinstance(inside, torch.Tensor) else []


@pytest.mark.parametrize("name", RUN_HERE)
def test_keeps_as_much_as_was_said(name: str) -> None:
    made = model()
    optimizer = build(name, made)
    steps(made, optimizer, range(2))
    parts = getattr(optimizer, "parts", [optimizer])
    # GrokAdamW keeps its state in the groups.
    states = [
        state
        for one in parts
        for state in (one.state, *(group.get("state", {}) for group in one.param_groups))
    ]
    kept = bytes_of([tensors_in(dict(state)) for state in states])
    assert optimizer_bytes(config(name), made, on_gpu=False)[0] == pytest.approx(kept, rel=0.03, abs=2000)


def test_a_state_in_main_memory_takes_nothing_of_a_gpu() -> None:
    made = model()
    sizes = [one.numel() for one in made.parameters()]
    assert optimizer_bytes(config("grokadamw"), made, on_gpu=True) == (0, 5 * 4 * max(sizes))
    assert optimizer_bytes(config("grokadamw"), made, on_gpu=False)[0] == 3 * 4 * sum(sizes)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_a_figure(name: str) -> None:
    assert state_bytes(name, {}, (128, 256), 4) >= 0
