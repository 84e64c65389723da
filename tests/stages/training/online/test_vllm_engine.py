"""vLLM as the engine: weights that reach it, what is sampled, and servers that have others than they were given."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.policy_server import policy_server
from support.tiny_model import Heard, make_model, workspace
from support.vllm_stand_in import stand_in_environment
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.training.online.engine import SamplingSettings
from tunemill.stages.training.online.vllm_engine_body import arguments_of, vllm_engine
from tunemill.stages.training.online.vllm_keys import EVERYWHERE, VllmKeys

pytest.importorskip("openai")
PROBE = [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14]]
ENDS = frozenset({2})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("policy") / "base")


def policy(base: Path, *, lora: bool = True) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])) if lora else model


def step(model: Any, seed: int) -> None:
    """A small step of everything that is trained."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 1e-2 * torch.randn(parameter.shape, generator=draws)


@contextmanager
def engine_of(folder: Path, base: Path, model: Any, url: str, probe: Any = PROBE, **settings: Any):
    out, heard = workspace(folder), Heard()
    config = VllmKeys(use_vllm=True, vllm_server_base_url=url, **settings)
    with vllm_engine(config, model, Model(base), probe, ENDS, 64, out, heard.report) as engine:
        yield engine


@pytest.mark.parametrize("lora", [True, False], ids=["adapter", "weights"])
def test_what_is_sampled_is_of_the_weights_as_they_are(tmp_path, base, lora):
    model = policy(base, lora=lora)
    with policy_server(base) as server, engine_of(tmp_path, base, model, server.url) as engine:
        engine.sync("0", 0)
        assert engine.gate.apart < 1e-5 and not engine.gate.is_proven, "nothing has moved yet"
        step(model, 1)
        engine.sync("1", 1)
        assert engine.gate.is_proven and engine.policy == "1"
        made = engine.generate(
            [PROBE[0], PROBE[0], PROBE[1]], [1, 2, 2], SamplingSettings(max_new_tokens=5, temperature=0.7)
        )
        assert list((tmp_path / "checkpoints" / "for_vllm").iterdir()) == [], "written weights are gone again"
    first, second, _ = made
    assert first.ids != second.ids, "completions of a prompt have seeds of their own"
    for one, prompt in zip(made, [PROBE[0], PROBE[0], PROBE[1]], strict=True):
        ids = torch.tensor([[*prompt, *one.ids]])
        with torch.no_grad():
            log_p = (model(ids).logits[0, len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
        expected = log_p.gather(-1, torch.tensor(one.ids)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(one.log_p), expected, atol=1e-4)
        assert one.policy == "1" and one.finish_reason == ("stop" if one.ids[-1] in ENDS else "length")


def test_an_adapter_that_is_ignored_stops_the_run_at_the_first_step_that_moved_it(tmp_path, base):
    model = policy(base)
    with (
        policy_server(base, fault="adapter ignored") as server,
        engine_of(tmp_path, base, model, server.url) as engine,
    ):
        engine.sync("0", 0)
        step(model, 1)
        with pytest.raises(UserError, match=r"answers as the model does without .* ignores the adapter"):
            engine.sync("1", 1)


@pytest.mark.parametrize("lora", [True, False], ids=["adapter", "weights"])
def test_an_engine_that_keeps_what_it_had_stops_the_run_within_a_step(tmp_path, base, lora):
    model = policy(base, lora=lora)
    with policy_server(base) as server, engine_of(tmp_path, base, model, server.url) as engine:
        for number in range(2):
            engine.sync(str(number), number)
            step(model, number)
        server.fault = "stale adapter" if lora else "stale weights"
        what = "adapter" if lora else "weights"
        with pytest.raises(UserError, match=f"as it did before step 2: the {what} that it was given"):
            engine.sync("2", 2)


def test_prompts_of_one_token_prove_the_weights_too(tmp_path, base):
    other, model = make_model(tmp_path / "other", seed=1), policy(base)
    with policy_server(base) as server, engine_of(tmp_path / "w", base, model, server.url, [[5]]) as engine:
        engine.sync("0", 0)
        assert engine.gate.apart < 1e-5
    with (
        policy_server(other) as server,
        engine_of(tmp_path / "o", base, model, server.url, [[5]]) as engine,
        pytest.raises(UserError, match="has another model"),
    ):
        engine.sync("0", 0)


def test_another_revision_stops_the_run_before_the_first_step(tmp_path, base):
    other = make_model(tmp_path / "other", seed=1)
    model = policy(base)
    with (
        policy_server(other) as server,
        engine_of(tmp_path / "w", base, model, server.url) as engine,
        pytest.raises(UserError, match="has another model, or another revision of it"),
    ):
        engine.sync("0", 0)


def test_weights_are_given_every_so_many_steps_and_samples_say_of_which_they_are(tmp_path, base):
    model = policy(base)
    with policy_server(base) as server:
        with engine_of(tmp_path, base, model, server.url, vllm_sync_interval=2) as engine:
            policies = []
            for number in range(4):
                engine.sync(str(number), number)
                (made,) = engine.generate([PROBE[0]], [number], SamplingSettings(max_new_tokens=2))
                policies.append(made.policy)
                step(model, number)
        assert policies == ["0", "0", "2", "2"]
        assert server.calls == ["/v1/load_lora_adapter", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"]


def test_a_server_that_takes_no_weights_is_told_how_to_start(tmp_path, base):
    with policy_server(base, takes=False) as server:
        for lora, needs in (
            (True, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
            (False, "VLLM_SERVER_DEV_MODE=1"),
        ):
            with (
                engine_of(tmp_path / needs, base, policy(base, lora=lora), server.url) as engine,
                pytest.raises(SettingError, match=f"{needs} vllm serve"),
            ):
                engine.sync("0", 0)


def test_settings_of_servers():
    assert VllmKeys(use_vllm=True).vllm_url is None
    assert VllmKeys(vllm_server_host=EVERYWHERE).vllm_url == "http://127.0.0.1:8000"
    assert VllmKeys(vllm_server_port=9000).vllm_url == "http://127.0.0.1:9000"
    assert VllmKeys(vllm_server_base_url="http://gpu:1/v1").vllm_url == "http://gpu:1"
    assert VllmKeys().correction is None and VllmKeys(use_vllm=True).correction == "sequence_mask"
    assert VllmKeys(vllm_importance_sampling_cap=2).correction_bounds == (None, 2)
    (fault,) = VllmKeys(use_vllm=True, vllm_python="/nowhere/python").faults()
    assert "/nowhere/python" in fault.reason
    named = {one.key for one in VllmKeys(vllm_sync_interval=2).idle()}
    assert named == {"vllm_sync_interval"}
    place = {"vllm_server_base_url": "http://gpu:1", "vllm_server_host": "gpu", "vllm_server_port": 1}
    named = {one.key for one in VllmKeys(use_vllm=True, **place, vllm_server_timeout=5).idle()}
    assert named == {"vllm_server_host", "vllm_server_port", "vllm_server_timeout"}
    correction = {f"vllm_importance_sampling_{name}": 2.0 for name in ("clip_max", "clip_min")}
    assert not list(VllmKeys(use_vllm=True, **correction).idle())
    off = VllmKeys(use_vllm=True, vllm_importance_sampling_correction=False, **correction)
    assert {one.key for one in off.idle()} == correction.keys()


def words_of(base: Path, **settings: Any) -> list[str]:
    config = VllmKeys(use_vllm=True, **settings)
    return arguments_of(config, "served", Model(base), "float32", 64)


def option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


def test_a_server_beside_the_training_takes_a_share_of_the_device(base):
    share, gpus = "--gpu-memory-utilization", "--tensor-parallel-size"
    block = {"vllm_share_of_block": 0.5, "vllm_gpus_of_block": 2}
    assert option(words_of(base), share) is None and option(words_of(base), gpus) is None
    assert option(words_of(base, vllm_mode="colocate"), share) == "0.3"
    assert option(words_of(base, vllm_mode="colocate"), gpus) is None
    of_block = words_of(base, vllm_mode="colocate", **block)
    assert (option(of_block, share), option(of_block, gpus)) == ("0.5", "2")
    # As Axolotl reads it, the block is that of a server which somebody else starts.
    assert words_of(base, **block) == words_of(base)
    own = {"vllm_gpu_memory_utilization": 0.2, "vllm_tensor_parallel_size": 4}
    for mode in ("colocate", "server"):
        words = words_of(base, vllm_mode=mode, **block, **own)
        assert (option(words, share), option(words, gpus)) == ("0.2", "4")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, r"Free memory on device .* The key is trl\.vllm_gpu_memory_utilization\. All that it said"),
        (
            {"vllm_server_timeout": 1e-6},
            r"did not start within 0 s\..* more time with trl\.vllm_server_timeout",
        ),
    ],
)
def test_a_server_that_does_not_start_names_the_key_to_turn(tmp_path, base, settings, said):
    words = "ValueError: Free memory on device (9.1/24.0 GiB) on startup is less than desired GPU memory utilization"
    python = stand_in_environment(tmp_path / "environment", fails=f"{words} (0.5, 12 GiB).")
    config = VllmKeys(use_vllm=True, vllm_mode="colocate", vllm_python=str(python), **settings)
    out, heard = workspace(tmp_path / "run"), Heard()
    with (
        pytest.raises(SettingError, match=said),
        vllm_engine(config, policy(base), Model(base), PROBE, ENDS, 64, out, heard.report),
    ):
        raise AssertionError("it has started")


def test_beside_the_training_no_other_server_is_asked():
    place = {"vllm_server_base_url": "http://gpu:1", "vllm_server_host": "gpu", "vllm_server_port": 1}
    config = VllmKeys(use_vllm=True, vllm_mode="colocate", **place)
    assert config.starts_vllm and config.vllm_url is None
    assert {one.key: one.reason for one in config.idle()} == dict.fromkeys(
        place, "trl.vllm_mode: colocate starts a server of its own"
    )


def test_a_server_beside_the_training_stays_awake():
    (idle,) = VllmKeys(use_vllm=True, vllm_mode="colocate", vllm_enable_sleep_mode=True).idle()
    assert idle.key == "vllm_enable_sleep_mode" and "keeps its share" in idle.reason
    (idle,) = VllmKeys(use_vllm=True, vllm_enable_sleep_mode=True).idle()
    assert idle.key == "vllm_enable_sleep_mode" and "vllm_mode: colocate alone" in idle.reason
    assert not list(VllmKeys(use_vllm=True, vllm_mode="colocate", vllm_enable_sleep_mode=False).idle())
