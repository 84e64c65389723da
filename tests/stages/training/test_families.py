"""Each family from its folder to an evaluated model: full, LoRA and QLoRA, rows packed, merged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.quantized import quantized
from support.tiny_model import Heard, evaluation_data, packs_of, random_rows, training_data, workspace
from support.trained_families import FAMILIES, make_folder

from tunemill.stages.artifacts import Adapter, BaseModel, Model, QuantizedBase, Tokenizer
from tunemill.stages.evaluation.answers.body import evaluate
from tunemill.stages.evaluation.answers.config import EvaluationConfig
from tunemill.stages.models.base_model.body import base_model
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.merged.body import merge
from tunemill.stages.models.merged.config import MergedConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

STEPS = 4
# What is trained: every parameter, or an adapter of this kind, on a base as it is or in 4 bits.
LORA = {"lora_r": 4, "lora_alpha": 16}
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"adapter": "lora", **LORA},
    "qlora": {"adapter": "qlora", "load_in_4bit": True, **LORA},
}
# Which tests run every time. Of each other family CI runs one, of kinds in turn; all are in `make test-exhaustive`.
FAST = {
    "full": ("lfm2",),
    "lora": ("llama", "gemma3_text"),
    "qlora": ("qwen3_moe",),
}
# In 4 bits the rows of a weight are multiples of 64.
WIDE = {"hidden_size": 64, "intermediate_size": 64}
IN_CI = {
    family: list(KINDS)[number % len(KINDS)]
    for number, family in enumerate(
        sorted(set(FAMILIES) - {family for fast in FAST.values() for family in fast})
    )
}


def marks(family: str, kind: str) -> list[pytest.MarkDecorator]:
    if family in FAST[kind]:
        return []
    return [pytest.mark.slow if IN_CI.get(family) == kind else pytest.mark.exhaustive]


CASES = [
    pytest.param(family, kind, id=f"{family}-{kind}", marks=marks(family, kind))
    for family in FAMILIES
    for kind in KINDS
]


# In these the rows of a sequence see each other: a convolution, and a mask that is made without position ids.
APART = {"lfm2", "gpt_oss"}


def trained(family: str, kind: str, folder: Path) -> tuple[BaseModel, QuantizedBase | None, Model, Heard]:
    """The base, that in 4 bits where it is, what training made of it, and what it said."""
    source = make_folder(family, folder / "source", **(WIDE if kind == "qlora" else {}))
    base, heard = workspace(folder / "base"), Heard()
    config = BaseModelConfig(base_model=str(source))
    base_model(config, tokenizer=Tokenizer(source), upstream=None, out=base, report=heard.report)
    frozen = quantized(folder / "frozen", BaseModel(base.data))[0] if kind == "qlora" else None
    rows = random_rows(12)
    targets = {} if kind == "full" else {"lora_target_modules": list(FAMILIES[family].targets)}
    settings = SftConfig(
        learning_rate=0.01, max_steps=STEPS, micro_batch_size=2, sequence_len=32, sample_packing=True, bf16=False,
        **KINDS[kind], **targets,
    )  # fmt: skip
    data = training_data(folder / "rows", rows, packs_of(12, 2))
    out = workspace(folder / "trained")
    sft(settings, frozen or Model(base.data), data, None, out, heard.report)
    return BaseModel(base.data), frozen, Model(out.data), heard


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_family_trains_merges_and_is_evaluated(tmp_path: Path, family: str, kind: str) -> None:
    base, frozen, made, heard = trained(family, kind, tmp_path)
    losses = heard.steps("loss")
    assert len(losses) == STEPS
    assert any("rows of a batch" in str(event) for event in heard.of("log")) == (family in APART)
    model = made
    if kind != "full":
        out = workspace(tmp_path / "merged")
        merge(
            MergedConfig(has_quantized_base=frozen is not None),
            base_model=base,
            adapter=Adapter(made.path),
            quantized_base=frozen,
            out=out,
            report=heard.report,
        )
        model = Model(out.data)
        assert heard.summary["max_abs_logit_difference"] <= heard.summary["logit_tolerance"]
    if frozen is not None:
        of_trained = heard.summary["max_abs_logit_difference_from_trained"]
        assert of_trained <= heard.summary["logit_tolerance"]
        assert heard.summary["max_abs_logit_difference_from_unquantized"] > 10 * of_trained
    before, after = (load_file(folder / "model.safetensors") for folder in (base.path, model.path))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(moved) == len(before) if kind == "full" else 0 < len(moved) < len(before)
    held_out, out = evaluation_data(tmp_path / "held", random_rows(12)[:4]), workspace(tmp_path / "scored")
    evaluate(EvaluationConfig(eval_max_new_tokens=4), model, None, held_out, out, heard.report)
    assert heard.summary["answers"] == 4
    base_scored, base_heard = workspace(tmp_path / "base_scored"), Heard()
    evaluate(EvaluationConfig(eval_max_new_tokens=4), base, None, held_out, base_scored, base_heard.report)
    assert heard.summary["eval_loss"] < base_heard.summary["eval_loss"]
