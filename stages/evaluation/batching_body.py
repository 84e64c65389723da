"""Which prompts may be answered together, without one changing the other's answer: found by trying."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import GenerationConfig

from tunemill.stages.evaluation.questions import Question
from tunemill.stages.report import Report

# Prompts that stand side by side may be padded, must be of one length, or each must be alone.
Batching = Literal["padded", "one length", "alone"]

SHORT: tuple[int, ...] = (1, 2, 3, 4, 5)
OTHER: tuple[int, ...] = (5, 3, 1, 2, 4)
LONG: tuple[int, ...] = (6, 2, 5, 1, 6, 4, 3, 2, 1)
NEW_TOKENS = 3
# Rounding differs between batches, in half precision by a hundredth. Padding that is seen changes a tenth and more.
TOLERANCE = 0.05


def left_padded(prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """B prompts as `input_ids` and `attention_mask` [B, L], padded on the left with token 0."""
    longest = max(len(prompt) for prompt in prompts)
    ids_bl = torch.zeros((len(prompts), longest), dtype=torch.long)
    mask_bl = torch.zeros_like(ids_bl)
    for place, prompt in enumerate(prompts):
        ids_bl[place, longest - len(prompt) :] = torch.tensor(prompt)
        mask_bl[place, longest - len(prompt) :] = 1
    return {"input_ids": ids_bl, "attention_mask": mask_bl}


def batching_of(model: Any) -> Batching:
    """What this model allows: its logits while it generates are, up to rounding, those of the prompt alone.

    A difference counts from a twentieth of what another prompt makes.
    """
    alone = {prompt: _answers(model, [prompt])[0] for prompt in (SHORT, OTHER, LONG)}
    allowed = TOLERANCE * _size(alone[SHORT][1][0] - alone[OTHER][1][0])
    kinds: tuple[tuple[Batching, tuple[tuple[int, ...], ...]], ...] = (
        ("padded", (SHORT, LONG)),
        ("one length", (SHORT, OTHER)),
    )
    for batching, prompts in kinds:
        together = zip(prompts, _answers(model, prompts), strict=True)
        if not any(_differs(alone[prompt], answer, allowed) for prompt, answer in together):
            return batching
    return "alone"


def batching_for(model: Any, questions: Sequence[Question], batch_size: int, report: Report) -> Batching:
    """How questions share batches; nothing is tried where there are none to share."""
    if batch_size == 1 or len(questions) < 2:
        return "padded"
    batching = batching_of(model)
    name = type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__
    if batching == "one length":
        report.log(f"{name}: padding changes its answers. Prompts of one length are answered together")
    if batching == "alone":
        report.log(f"{name}: other prompts in a batch change its answers. Prompts are answered one by one")
    return batching


def _answers(model: Any, prompts: Sequence[tuple[int, ...]]) -> list[tuple[list[int], Any]]:
    """For each prompt the ids that follow, and their logits [T, V]."""
    device = next(model.parameters()).device
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    inputs = {name: tensor.to(device) for name, tensor in left_padded(prompts).items()}
    with torch.no_grad():
        made = model.generate(**inputs, generation_config=settings)
    new = made.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    logits_btv = torch.stack(made.logits, dim=1).float()
    return list(zip(new, logits_btv, strict=True))


def _differs(one: tuple[list[int], Any], other: tuple[list[int], Any], allowed: float) -> bool:
    """Whether logits differ by more than `allowed`. Behind different tokens they do not say anything."""
    for step in range(NEW_TOKENS):
        if _size(one[1][step] - other[1][step]) > allowed:
            return True
        if one[0][step] != other[0][step]:
            return False
    return False


def _size(change: Any) -> float:
    """Root mean square: the largest change of a big vocabulary is mostly rounding."""
    return float(change.pow(2).mean().sqrt())
