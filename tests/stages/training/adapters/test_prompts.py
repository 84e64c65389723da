"""LLaMA-Adapter: prompts in the attention of the upper layers, trained, resumed, saved as PEFT has them, evaluated."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaptionPromptConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from stages.training.adapters.adapted import ROWS, llama, merged, model_of
from stages.training.adapters.test_kinds import SMALL, gpt2
from support.families import make_family, packed_batch, step
from support.project import make_project, nodes_in_state
from support.tiny_model import (
    Heard,
    evaluation_data,
    folder_bytes,
    packs_of,
    random_rows,
    training_data,
    workspace,
)
from transformers import AutoModelForCausalLM, MistralConfig, Qwen3Config

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.looks import everything
from tunemill.stages.artifacts import Adapter, BaseModel, Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.evaluation.answers.body import evaluate
from tunemill.stages.evaluation.answers.config import EvaluationConfig
from tunemill.stages.report import Report
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

PROMPTS: dict[str, Any] = {"adapter": "llama-adapter", "peft_adapter": {"layers": 1, "len": 4}}
IDS = torch.arange(3, 60).reshape(3, 19)


def train(
    folder: Path, base: BaseModel, report: Report, *, steps: int = 60, rows: Any = ROWS, **settings: Any
) -> Adapter:
    """An adapter of four prompts in the last layer."""
    config = SftConfig(
        **{
            "learning_rate": 3e-2,
            "max_steps": steps,
            "logging_steps": 1,
            "save_strategy": "no",
            **PROMPTS,
            **settings,
        }
    )
    out = workspace(folder)
    packs = packs_of(len(rows), 2) if config.sample_packing else None
    data = training_data(folder.parent / "rows", rows, packs)
    sft(config, base, data, None, out, report)
    return Adapter(out.data)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits.float()


def loss_of(folder: Path, base: Model, adapter: Adapter | None) -> float:
    heard = Heard()
    held_out = evaluation_data(folder / "rows", ROWS)
    evaluate(
        EvaluationConfig(eval_max_new_tokens=4), base, adapter, held_out, workspace(folder), heard.report
    )
    return float(heard.summary["eval_loss"])


@pytest.mark.parametrize(
    "kind", ["llama", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("mistral", "gpt2"))]
)
def test_it_learns_and_peft_loads_it(tmp_path: Path, kind: str) -> None:
    made = {
        "llama": lambda: llama(tmp_path / "base"),
        "mistral": lambda: model_of(tmp_path / "base", MistralConfig(**{**SMALL, "num_key_value_heads": 1})),
        "gpt2": lambda: gpt2(tmp_path / "base", bare=False),
    }
    base, heard = made[kind](), Heard()
    before = folder_bytes(base.path)
    adapter = train(tmp_path / "trained", base, heard.report, micro_batch_size=4)
    assert folder_bytes(base.path) == before
    losses = heard.steps("loss")
    assert losses[60] < losses[1] - 0.3
    stored = load_file(adapter.path / "adapter_model.safetensors")
    assert sorted(name.rpartition(".")[2] for name in stored) == ["adaption_gate", "adaption_prompt"]
    plain = AutoModelForCausalLM.from_pretrained(base.path)
    without = logits(plain)
    loaded = PeftModel.from_pretrained(plain, adapter.path)
    assert loaded.peft_config["default"].peft_type == "ADAPTION_PROMPT"
    assert float((logits(loaded) - without).abs().max()) > 0.1
    # What is evaluated is base and adapter.
    scored = loss_of(tmp_path / "scored", base, adapter)
    assert scored == pytest.approx(losses[60], abs=0.5)
    assert scored < loss_of(tmp_path / "base_scored", base, None) - 0.3
    with pytest.raises(UserError, match="peft_type ADAPTION_PROMPT cannot be folded in"):
        merged(tmp_path / "merged", base, adapter)


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_packed_rows_compute_what_they_compute_apart(family: str) -> None:
    """Each token looks at the prompts by itself: the loss and every gradient are the same."""
    config = AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=4, adapter_layers=1)
    model = get_peft_model(make_family(family), config)
    for name, parameter in model.named_parameters():
        if name.endswith("adaption_gate"):
            parameter.data.fill_(0.7)
    lengths = (5, 7, 6)
    batch = packed_batch(*lengths)
    loss, gradients = step(model, batch)
    total, added = 0.0, {name: torch.zeros_like(one) for name, one in gradients.items()}
    predicted = [int((row[0, 1:] != -100).sum()) for row in batch["labels"].split(lengths, dim=1)]
    rows = zip(batch["input_ids"].split(lengths, dim=1), batch["labels"].split(lengths, dim=1), strict=True)
    for (ids, labels), count in zip(rows, predicted, strict=True):
        share = count / sum(predicted)
        one, found = step(model, {"input_ids": ids, "labels": labels})
        total += one * share
        for name in added:
            added[name] += found[name] * share
    assert loss == pytest.approx(total, rel=1e-6)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, added[name], rtol=1e-4, atol=1e-7), name


@pytest.mark.slow
def test_packs_and_gradient_checkpoints_train_the_same(tmp_path: Path) -> None:
    base, rows = llama(tmp_path / "base"), random_rows(8)
    settings = {"steps": 4, "rows": rows, "sample_packing": True, "sequence_len": 32}
    plain, other = Heard(), Heard()
    train(tmp_path / "plain", base, plain.report, **settings)
    train(tmp_path / "checkpointed", base, other.report, gradient_checkpointing=True, **settings)
    assert plain.steps("loss") == pytest.approx(other.steps("loss"), rel=1e-5)
    assert plain.steps("loss")[4] != plain.steps("loss")[1]


class StoppedError(Exception):
    """What stands for a killed process."""


@pytest.mark.slow
def test_goes_on_exactly(tmp_path: Path) -> None:
    base, rows = llama(tmp_path / "base"), random_rows(8)
    settings = {"steps": 8, "rows": rows, "save_strategy": None, "save_steps": 3}

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(tmp_path / "resumed", base, Report(interrupt), **settings)
    resumed, whole = Heard(), Heard()
    found = train(tmp_path / "resumed", base, resumed.report, **settings)
    expected = train(tmp_path / "whole", base, whole.report, **settings)
    assert min(resumed.steps("loss")) == 4
    assert resumed.steps("loss") == {step: loss for step, loss in whole.steps("loss").items() if step >= 4}
    assert folder_bytes(found.path) == folder_bytes(expected.path)


def test_models_that_it_does_not_fit(tmp_path: Path) -> None:
    qwen = model_of(tmp_path / "qwen", Qwen3Config(**SMALL, head_dim=32))
    with pytest.raises(
        SettingError, match="for models of the types llama, mistral, gpt2, and this one is of the type"
    ):
        train(tmp_path / "1", qwen, Heard().report)
    with pytest.raises(SettingError, match="here they are 2 times 16, not 64"):
        train(tmp_path / "2", llama(tmp_path / "narrow", head_dim=16, num_attention_heads=2), Heard().report)
    with pytest.raises(SettingError, match="layers: 3: the model has 2 layers"):
        train(tmp_path / "3", llama(tmp_path / "llama"), Heard().report, peft_adapter={"layers": 3, "len": 4})


@pytest.mark.slow
def test_a_pipeline_evaluates_it_beside_its_base_and_merges_nothing(tmp_path: Path) -> None:
    datasets = [{"path": "data/echoes.jsonl", "type": "chat_template"}]
    project = make_project(tmp_path / "project", **PROMPTS, **FREE, max_steps=1, datasets=datasets)
    assert "evaluation_of_base" in project.plan()
    project.edit(pipeline={"evaluate": ["trained"]})
    finished = project.run()
    assert nodes_in_state(finished, "computed") == set(finished), finished
    assert not {"merged", "evaluation_of_merged"} & set(finished)
    pipeline = load_pipeline(project.yaml)
    inputs = pipeline.node("evaluation_of_trained").inputs
    assert inputs["model"] == ("base_model",) and inputs["adapter"] == ("trained",)
    assert (project.folder / "outputs" / "trained" / "adapter_config.json").is_file()


FREE = {"lora_r": None, "lora_alpha": None, "lora_target_linear": None, "quantization": None}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"peft_adapter": {"layers": 1}}, "needs peft_adapter with layers"),
        ({"peft_adapter": None}, "needs peft_adapter with layers"),
        ({"quantization": {"weight_dtype": "int8"}}, "prompts of adapter: llama-adapter change no weight"),
        ({"pipeline": {"evaluate": ["merged"]}}, "there is no merged model: the prompts .* Name `trained`"),
        ({"load_in_8bit": True}, "load_in_8bit: PEFT puts the prompts"),
        (
            {"relora": True, "jagged_restart_steps": 2},
            "relora: .* but adapter is llama-adapter: prompts are trained",
        ),
        ({"lora_model_dir": "model"}, "lora_model_dir is about low-rank factors"),
        ({"lora_model_dir": "asset://a/trained"}, "lora_model_dir is about low-rank factors"),
        ({"peft_init_lora_weights": "pissa"}, "peft_init_lora_weights is about low-rank factors"),
        ({"tokens": ["<x>"]}, "which llama-adapter never trains"),
        (
            {"special_tokens": {"eos_token": "<x>"}, "lora_modules_to_save": ["lm_head"]},
            "not in the tokenizer",
        ),
        ({"float16": True, "bf16": None}, "float16: true, and adapter is llama-adapter"),
        ({"overrides_of_model_config": {"model_type": "qwen3"}}, "this one is of the type qwen3"),
        ({"overrides_of_model_config": {"head_dim": 8}}, "2 times 8, not 32"),
    ],
    ids=str,
)
def test_what_check_refuses(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    project = make_project(tmp_path / "project", **{**PROMPTS, **FREE, **keys})
    with pytest.raises(ConfigError, match=said):
        load_pipeline(project.yaml, look_at=everything)


def test_what_asks_for_nothing_is_noted(tmp_path: Path) -> None:
    keys = {**FREE, "lora_r": 8, "merge_method": "legacy", "lora_mlp_kernel": True, "loraplus_lr_ratio": 4}
    notes = load_pipeline(make_project(tmp_path / "project", **PROMPTS, **keys).yaml).notes
    assert {note.path for note in notes if note.kind == "idle"} >= {
        "lora_r", "merge_method", "lora_mlp_kernel", "loraplus_lr_ratio",
    }  # fmt: skip
    other = make_project(tmp_path / "other", peft_adapter={"layers": 1, "len": 4})
    assert "peft_adapter" in {note.path for note in load_pipeline(other.yaml).notes if note.kind == "idle"}
