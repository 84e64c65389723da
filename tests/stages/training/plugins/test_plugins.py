"""Plugins of one's own in real trainings: their hooks act, they go on exactly, and their faults are told as theirs."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.plugin_files import plugged
from support.tiny_model import (
    Heard,
    evaluation_data,
    folder_bytes,
    make_model,
    random_rows,
    training_data,
    workspace,
)
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.report import Report
from tunemill.stages.training.machine_body import choose_precision
from tunemill.stages.training.saved_body import prove_saved
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}


class StoppedError(Exception):
    """What stands for a killed process."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "base", hidden_size=16, intermediate_size=24)


def train(folder: Path, base: Path, report: Report | None = None, **settings: Any) -> Path:
    """Four steps."""
    given = {"learning_rate": 1e-2, "optimizer": "sgd", "logging_steps": 1, "num_epochs": 2, **settings}
    out = workspace(folder)
    data = training_data(folder.parent / "rows", random_rows(2))
    sft(SftConfig(**given), Model(base), data, None, out, report or Heard().report)
    return out.data


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def changed(one: Path, other: Path) -> set[str]:
    """Names of the weights that differ."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return {name for name in first if not first[name].equal(second[name])}


def test_hooks_freeze_a_layer_and_a_key_of_their_own_changes_what_is_learnt(
    tmp_path: Path, base: Path
) -> None:
    plain = train(tmp_path / "plain", base)
    frozen = train(tmp_path / "frozen", base, **plugged(tmp_path, "Freezes", frozen_layer=0))
    shrunk = train(tmp_path / "shrunk", base, **plugged(tmp_path, "Freezes", shrink=0.5))
    assert {name for name in changed(plain, base) if ".layers.0." in name}
    assert not {name for name in changed(frozen, base) if ".layers.0." in name}
    assert {name for name in changed(frozen, base) if ".layers.1." in name}
    assert "model.embed_tokens.weight" in changed(shrunk, plain)


def test_an_optimizer_and_a_scheduler_of_ones_own(tmp_path: Path, base: Path) -> None:
    heard = Heard()
    settings = {"optimizer": "adamw_torch_fused", "max_grad_norm": 0}
    found = train(tmp_path / "own", base, heard.report, **settings, **plugged(tmp_path, "Steps"))
    assert list(heard.steps("learning_rate").values()) == pytest.approx([0.01, 0.005, 0.01 / 3, 0.0025])
    assert heard.summary["saved_logit_difference"] == pytest.approx(0, abs=1e-6)
    # Half a step of SGD is a step of half the rate, with everything else as it was.
    doubled = plugged(tmp_path, "Steps")
    Path(doubled["plugin_code"][1]).write_text(
        Path(doubled["plugin_code"][1]).read_text().replace("mul_(0.5)", "mul_(1)")
    )
    whole = train(tmp_path / "whole", base, **settings, **doubled, learning_rate=5e-3)
    first, second = weights(found), weights(whole)
    assert all(first[name].allclose(second[name], atol=1e-6) for name in first)
    assert changed(found, base)


def test_a_plugin_goes_on_exactly(tmp_path: Path, base: Path) -> None:
    settings = {
        "optimizer": "adamw_torch_fused",
        "save_steps": 2,
        **plugged(tmp_path, "Freezes", "Steps", shrink=0.9, frozen_layer=1),
    }

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(tmp_path / "resumed", base, Report(interrupt), **settings)
    resumed, whole = Heard(), Heard()
    found = train(tmp_path / "resumed", base, resumed.report, **settings)
    expected = train(tmp_path / "whole", base, whole.report, **settings)
    assert min(resumed.steps("loss")) == 3
    assert folder_bytes(found) == folder_bytes(expected)


HOOK = '''"""One hook."""

import torch
from torch import nn


class One:
    """One hook."""

    def {hook}:
        {body}
'''


@pytest.mark.parametrize(
    ("hook", "body", "said"),
    [
        ("register(self, cfg)", "pass", "register: sees the whole YAML"),
        ("get_trainer_cls(self, cfg)", "pass", "get_trainer_cls: name the class in trainer_cls"),
        ("pre_model_load(self, cfg)", "cfg.output_dir", "cfg.output_dir: neither a key of this training"),
        ("pre_model_load(self, cfg)", "cfg.save_steps", "cfg.save_steps: neither a key of this training"),
        ("pre_model_load(self, cfg)", "cfg.learning_rate = 1", "cfg.learning_rate cannot be set"),
        ("create_optimizer(self, cfg, trainer)", "return 3", "must return a torch.optim.Optimizer, or None, not 3"),
        ("add_callbacks_pre_trainer(self, cfg, model)", "return [print]", "must return a list of .*TrainerCallback"),
        ("get_input_args(self)", "return dict", "must name a pydantic model"),
        ("post_model_load(self, model)", "pass", r"One: post_model_load\(model\) cannot be called with \(cfg, model\)"),
        ("post_train(self, cfg, model, more)", "pass", r"post_train\(cfg, model, more\) cannot be called with"),
        ("post_model_load(self, cfg, model)", "1 / 0", r"One.post_model_load raised ZeroDiv.*own_plugin.py, line 11"),
        ("__init__(self)", "1 / 0", r"own_plugin.One raised ZeroDivisionError: .*own_plugin.py, line 11"),
        (
            "post_model_load(self, cfg, model)",
            "model.lm_head = nn.Sequential(model.lm_head, nn.Tanh())",
            "read by transformers, is another model than the one that was trained",
        ),
        (
            "post_model_load(self, cfg, model)",
            "model.register_forward_hook(lambda m, i, o: setattr(o, 'logits', o.logits * 2))",
            "read by transformers, is another model than the one that was trained",
        ),
    ],
)  # fmt: skip
def test_what_a_plugin_may_not_do_is_told(
    tmp_path: Path, base: Path, hook: str, body: str, said: str
) -> None:
    given = plugged(tmp_path, "One", text=HOOK.format(hook=hook, body=body))
    settings = {"optimizer": "adamw_torch_fused", "max_steps": 1, "kernels": "off", **given}
    with pytest.raises(UserError, match=said):
        train(tmp_path / "out", base, **settings)


def test_a_fault_that_is_not_the_plugins_stays_what_it_is(tmp_path: Path, base: Path) -> None:
    def broken(event: dict[str, Any]) -> None:
        if event["type"] == "step":
            raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        train(tmp_path / "out", base, Report(broken), **plugged(tmp_path, "Freezes"))


def test_weights_of_an_adapters_base_may_not_change(tmp_path: Path, base: Path) -> None:
    text = HOOK.format(hook="post_model_build(self, cfg, model)", body="model.lm_head.weight.data.mul_(3)")
    with pytest.raises(UserError, match="as those of an adapter's base"):
        train(tmp_path / "out", base, **LORA, **plugged(tmp_path, "One", text=text))
    heard = Heard()
    train(tmp_path / "good", base, heard.report, **LORA, **plugged(tmp_path, "Freezes", frozen_layer=None))
    assert heard.summary["saved_logit_difference"] < 1e-4


def test_an_optimizer_of_the_yaml_beside_one_of_a_plugin_is_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(SettingError, match="create_optimizer makes what optimizer asks for"):
        train(tmp_path / "out", base, **plugged(tmp_path, "Steps"))


def test_the_model_of_the_keys_has_the_last_word(tmp_path: Path, base: Path) -> None:
    with pytest.raises(
        SettingError, match=r"frozen_layer: own_plugin.Freezes refuses it: .*greater than or equal"
    ):
        train(tmp_path / "out", base, **plugged(tmp_path, "Freezes", frozen_layer=-1))


RECORDER = '''"""A callback that records."""

from transformers import TrainerCallback


class Recorder(TrainerCallback):
    """Every loss."""

    def __init__(self):
        self.losses = []

    def on_log(self, args, state, control, logs=None, **others):
        self.losses += [logs["loss"]] if "loss" in logs else []


class One:
    """Adds it, and reads it when all is done."""

    def add_callbacks_post_trainer(self, cfg, trainer):
        self.recorder = Recorder()
        return [self.recorder]

    def post_train(self, cfg, model):
        raise ValueError(f"recorded {len(self.recorder.losses)}")
'''


ADDER = '''"""Callbacks that a hook adds to the Trainer itself."""

from transformers import TrainerCallback


class Shrinks(TrainerCallback):
    """The embeddings, after each step."""

    def on_step_end(self, {parameters}):
        model.get_input_embeddings().weight.data.mul_(0.5)


class One:
    """Adds it, or gives it."""

    def {hook}(self, cfg, trainer):
        {body}
'''
ADDED = ("post_trainer_create", "trainer.add_callback(Shrinks())")
GIVEN = ("add_callbacks_post_trainer", "return [Shrinks()]")
EVENT = "args, state, control, model, **others"


def test_a_callback_that_a_hook_adds_itself_stands_where_one_that_it_gives_does(
    tmp_path: Path, base: Path
) -> None:
    settings = {"eval_steps": 1, "save_steps": 2, "num_epochs": 1, "kernels": "off"}
    losses = []
    for hook, body in (ADDED, GIVEN):
        heard, folder = Heard(), tmp_path / hook
        text = ADDER.format(hook=hook, body=body, parameters=EVENT)
        out, data = workspace(folder), training_data(tmp_path / "rows", random_rows(2))
        config = SftConfig(
            learning_rate=1e-2, optimizer="sgd", **settings, **plugged(folder, "One", text=text)
        )
        held_out = evaluation_data(tmp_path / "held_out", random_rows(3, seed=1))
        sft(config, Model(base), data, held_out, out, heard.report)
        losses.append(heard.steps("eval_loss"))
    assert losses[0] == losses[1] and losses[0]


@pytest.mark.parametrize(("hook", "body"), [ADDED, GIVEN])
def test_a_callback_that_cannot_be_called_is_told(tmp_path: Path, base: Path, hook: str, body: str) -> None:
    text = ADDER.format(hook=hook, body=body, parameters="args, state, control, model")
    with pytest.raises(
        SettingError, match=r"Shrinks.on_step_end\(args, .* cannot be called: .* \*\*kwargs\)"
    ):
        train(tmp_path / "out", base, **plugged(tmp_path, "One", text=text))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("class One:\n    post_train = 3\n", r"own_plugin.One: post_train is no method: 3"),
        (
            ADDER.format(hook=GIVEN[0], body=GIVEN[1], parameters=EVENT)
            + "\n\nShrinks.on_save = None\n",
            r"Shrinks.on_save is no method: None",
        ),
    ],
)  # fmt: skip
def test_what_is_no_method_is_told(tmp_path: Path, base: Path, given: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        train(tmp_path / "out", base, **plugged(tmp_path, "One", text=given))


def test_a_hook_that_is_none_is_not_there(tmp_path: Path, base: Path) -> None:
    text = "class One:\n    register = create_optimizer = None\n    post_train = print\n"
    plain = train(tmp_path / "plain", base)
    assert folder_bytes(train(tmp_path / "out", base, **plugged(tmp_path, "One", text=text))) == folder_bytes(
        plain
    )


def test_memory_that_runs_out_as_the_result_is_read_is_no_fault_of_a_plugin(
    tmp_path: Path, base: Path
) -> None:
    config, out = SftConfig(learning_rate=1), workspace(tmp_path)
    out.data.mkdir(parents=True, exist_ok=True)
    # Without weights they are made anew, and there is no memory for these.
    save_file({}, out.data / "model.safetensors", {"format": "pt"})
    described = json.loads((base / "config.json").read_text())
    (out.data / "config.json").write_text(json.dumps({**described, "intermediate_size": 10**13}))
    model = AutoModelForCausalLM.from_pretrained(base)
    with pytest.raises(RuntimeError, match="allocate memory"):
        prove_saved(config, model, Model(base), choose_precision(config, has_factors=config.has_factors), out)


def test_a_callback_records_and_what_is_in_no_checkpoint_is_told(tmp_path: Path, base: Path) -> None:
    heard = Heard()
    given = {"save_steps": 2, **plugged(tmp_path, "One", text=RECORDER)}
    with pytest.raises(UserError, match=r"One.post_train raised ValueError: recorded 4 "):
        train(tmp_path / "out", base, heard.report, **given)
    assert any(
        "Recorder: what this callback remembers changes" in event["message"] for event in heard.of("log")
    )


@pytest.mark.parametrize("kept", ["{1: 2}", "[{'sizes': (1, 2)}]", "{'of': print}"])
def test_a_state_that_would_come_back_as_another_is_told(tmp_path: Path, base: Path, kept: str) -> None:
    text = RECORDER.replace(
        "class Recorder(TrainerCallback)", "class Recorder(TrainerCallback, ExportableState)"
    )
    text = text.replace(
        "    def on_log(",
        f"    def state(self):\n        return {{'args': {{}}, 'attributes': {{'kept': {kept}}}}}\n\n    def on_log(",
    ).replace(
        "import TrainerCallback",
        "import TrainerCallback\nfrom transformers.trainer_callback import ExportableState",
    )
    with pytest.raises(UserError, match=r"Recorder: state\(\) must give .*TypeError"):
        train(tmp_path / "out", base, save_steps=2, **plugged(tmp_path, "One", text=text))
