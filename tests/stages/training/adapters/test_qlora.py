"""Adapters on a quantized base: trained, merged, evaluated, and the base left as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support.project import make_project, nodes_in_state
from support.quantized import make_base, quantized
from support.tiny_model import Heard, evaluation_data, folder_bytes, random_rows, training_data, workspace
from support.variants import first_in_ci
from transformers import AutoModelForCausalLM

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.stages.artifacts import Adapter, BaseModel, Model, QuantizedBase
from tunemill.stages.evaluation.answers.body import evaluate
from tunemill.stages.evaluation.answers.config import EvaluationConfig
from tunemill.stages.models.loading_body import load_causal_lm
from tunemill.stages.models.merged.body import merge
from tunemill.stages.models.merged.config import MergedConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

IDS = torch.arange(3, 60).reshape(3, 19)
ROWS = random_rows(4, longest=12)


def train(
    folder: Path, base: QuantizedBase, *, steps: int, bits: int = 4, **settings: Any
) -> tuple[Adapter, Heard]:
    config = SftConfig(
        adapter="qlora" if bits == 4 else "lora",
        lora_r=8,
        lora_alpha=16,
        lora_target_linear=True,
        learning_rate=1e-2,
        max_steps=steps,
        logging_steps=1,
        save_strategy="no",
        **{f"load_in_{bits}bit": True, **settings},
    )
    out, heard = workspace(folder), Heard()
    data = training_data(folder / "rows", ROWS)
    sft(config, base_model=base, training_data=data, evaluation_data=None, out=out, report=heard.report)
    return Adapter(out.data), heard


def merged(
    folder: Path, base: BaseModel, frozen: QuantizedBase, adapter: Adapter, method: str
) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    config = MergedConfig(merge_method=method, has_quantized_base=True)
    merge(config, base_model=base, quantized_base=frozen, adapter=adapter, out=out, report=heard.report)
    return out.data, heard


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits.float()


def loss_of(folder: Path, model: Model, adapter: Adapter | None) -> float:
    heard = Heard()
    evaluate(
        EvaluationConfig(),
        model,
        adapter,
        evaluation_data(folder / "rows", ROWS),
        workspace(folder),
        heard.report,
    )
    return float(heard.summary["eval_loss"])


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "dtype"), [(4, torch.bfloat16), (8, torch.float32)])
def test_it_learns_and_merges_into_what_was_trained(tmp_path: Path, bits: int, dtype: torch.dtype) -> None:
    base = make_base(tmp_path / "base", dtype)
    frozen, _ = quantized(tmp_path / "frozen", base, **{f"load_in_{bits}bit": True})
    before = folder_bytes(frozen.path)
    adapter, heard = train(tmp_path / "trained", frozen, steps=60, bits=bits)
    assert folder_bytes(frozen.path) == before
    losses = heard.steps("loss")
    assert losses[1] > 4 and losses[60] < 0.5, "four rows are learned by heart"

    data, heard = merged(tmp_path / "merged", base, frozen, adapter, "memory_efficient")
    of_trained = heard.summary["max_abs_logit_difference_from_trained"]
    assert of_trained == heard.summary["max_abs_logit_difference"] <= heard.summary["logit_tolerance"]
    assert heard.summary["max_abs_logit_difference_from_unquantized"] > 2 * of_trained
    on_quantized = PeftModel.from_pretrained(load_causal_lm(frozen.path, dtype=torch.float32), adapter.path)
    found = logits(AutoModelForCausalLM.from_pretrained(data, dtype=torch.float32))
    # Evaluated in 8 bits, inputs are rounded too.
    rounding = (0.03 if bits == 4 else 0.1) * float(found.abs().max())
    assert float((found - logits(on_quantized)).abs().max()) < rounding
    assert {tensor.dtype for tensor in AutoModelForCausalLM.from_pretrained(data).state_dict().values()} == {
        dtype
    }

    onto_base, heard = merged(tmp_path / "legacy", base, frozen, adapter, "legacy")
    assert (
        heard.summary["max_abs_logit_difference"]
        == heard.summary["max_abs_logit_difference_from_unquantized"]
    )
    assert heard.summary["max_abs_logit_difference_from_trained"] > 2 * of_trained
    on_base = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32), adapter.path
    )
    found = logits(AutoModelForCausalLM.from_pretrained(onto_base, dtype=torch.float32))
    assert float((found - logits(on_base)).abs().max()) < rounding

    trained = loss_of(tmp_path / "evaluated", frozen, adapter)
    assert trained == pytest.approx(loss_of(tmp_path / "of merged", Model(data), None), rel=0.1)
    if bits == 4:
        assert trained != pytest.approx(loss_of(tmp_path / "of base", base, adapter), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    first_in_ci(
        {"gradient_checkpointing": True, "bf16": True},
        {"bf16": True},
        {"bf16": "full"},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"lora_modules_to_save": ["lm_head"]},
    ),
    ids=str,
)
def test_precisions_and_checkpoints(tmp_path: Path, settings: dict[str, Any]) -> None:
    frozen, _ = quantized(tmp_path / "frozen", make_base(tmp_path / "base", torch.bfloat16))
    _, plain = train(tmp_path / "plain", frozen, steps=3)
    _, heard = train(tmp_path / "trained", frozen, steps=3, **settings)
    assert heard.summary["kernels"] == "none"
    for step, loss in plain.steps("loss").items():
        assert heard.steps("loss")[step] == pytest.approx(
            loss, rel=0.2 if "lora_modules_to_save" in settings else 0.01
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("qlora") / "project"
    found = make_project(folder, adapter="qlora", load_in_4bit=True, load_in_8bit=False, max_steps=2)
    found.run()
    return found


@pytest.mark.slow
def test_the_quantized_base_is_a_node_that_is_made_once(project: Any) -> None:
    nodes = project.plan()
    assert {item.state for item in nodes.values()} == {"cached"}
    metrics = {name: item.published.manifest["metrics"] for name, item in project.run().items()}
    # The tiny model's rows are 32 wide, and only those of 64 can be quantized.
    assert metrics["quantized_base"]["quantized_modules"] == 2
    merged = metrics["merged"]
    assert (
        merged["max_abs_logit_difference_from_trained"] < merged["max_abs_logit_difference_from_unquantized"]
    )
    assert {
        "evaluation_of_base",
        "evaluation_of_trained",
        "evaluation_of_merged",
        "evaluation_of_quantized",
    } < set(nodes)

    def runs(*overrides: str) -> set[str]:
        return nodes_in_state(project.plan(*overrides), "run")

    after_merging = {"merged", "quantized", "evaluation_of_merged", "evaluation_of_quantized"}
    after_training = {"trained", "evaluation_of_trained", *after_merging}
    assert runs("lora_r=2") == after_training
    assert runs("merge_method=legacy") == after_merging
    assert runs("bnb_4bit_quant_type=fp4") == {"quantized_base", *after_training}
    assert runs("learning_rate=0.5") == after_training


@pytest.mark.slow
def test_what_is_evaluated_is_what_was_trained(project: Any) -> None:
    pipeline = load_pipeline(project.yaml)
    assert pipeline.node("evaluation_of_trained").inputs["model"] == ("quantized_base",)
    assert pipeline.node("trained").inputs["base_model"] == ("quantized_base",)
    assert pipeline.node("merged").inputs["base_model"] == ("base_model",)
    for name in ("trained", "merged", "evaluation_of_trained"):
        assert "bitsandbytes" in pipeline.node(name).stage.libraries


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"adapter": "qlora"},
            "adapter: qlora is a low-rank adapter on a base in 4 bits. Set load_in_4bit: true",
        ),
        ({"adapter": "qlora", "load_in_8bit": True}, "Use adapter: lora, or load_in_4bit: true instead"),
        ({"adapter": None, "load_in_4bit": True}, "quantized weights cannot be trained.* Set adapter: qlora"),
        ({"adapter": None, "load_in_8bit": True}, "quantized weights cannot be trained.* Set adapter: lora"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "load_in_4bit and load_in_8bit: choose one"),
        ({"load_in_4bit": True, "bnb_config_kwargs": {"no_such": 1}}, "bnb_config_kwargs.no_such"),
    ],
)
def test_what_goes_with_what(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    other = make_project(tmp_path / "project", **{"load_in_4bit": False, **changes})
    with pytest.raises(ConfigError, match=reason):
        other.plan()


@pytest.mark.parametrize(
    ("changes", "noted"),
    [
        ({"merge_method": "legacy"}, "merge_method"),
        ({"bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type"),
        ({"bnb_config_kwargs": {"llm_int8_threshold": 4}, "load_in_4bit": False}, "bnb_config_kwargs"),
        ({"load_in_8bit": True, "bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type"),
    ],
)
def test_what_asks_for_nothing_is_noted(tmp_path: Path, changes: dict[str, Any], noted: str) -> None:
    notes = load_pipeline(make_project(tmp_path / "project", **changes).yaml).notes
    assert noted in {note.path.partition(".")[0] for note in notes if note.kind == "idle"}
