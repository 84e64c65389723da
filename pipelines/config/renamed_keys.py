"""Keys that Axolotl reads under another name, or no longer reads: mapped with a note, or refused with what to write."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.problems import Problem

# Old key -> the key that is meant, with the same value.
RENAMED = {
    "dataset_processes": "dataset_num_proc",
    "dpo_beta": "rl_beta",
    "evaluation_strategy": "eval_strategy",
    "kd_top_k_before_softmax": "kd_normalize_topk",
    "liger_swiglu": "liger_glu_activation",
    "model_config": "overrides_of_model_config",
    "model_kwargs": "overrides_of_model_kwargs",
    "model_revision": "revision_of_model",
    "noisy_embedding_alpha": "neftune_noise_alpha",
    "push_to_hub_model_id": "hub_model_id",
    "sequence_parallel_degree": "context_parallel_size",
    "wandb_run_id": "wandb_name",
}
# Keys that are gone, and what to write in their place.
REMOVED = {
    "max_packed_sequence_len": "sequence_len, with sample_packing: true",
    "relora_anneal_steps": "jagged_restart_anneal_steps",
    "relora_steps": "jagged_restart_steps",
    "relora_warmup_steps": "jagged_restart_warmup_steps",
    "rope_scaling": "overrides_of_model_config: {rope_scaling: ...}",
    "s2_attention": "attn_implementation: flash_attention_2",
    "unsloth_cross_entropy_loss": "kernels: [linear_cross_entropy], or cut_cross_entropy: true",
    "unsloth_lora_mlp": "lora_mlp_kernel: true",
    "unsloth_lora_o": "lora_o_kernel: true",
    "unsloth_lora_qkv": "lora_qkv_kernel: true",
    "unsloth_rms_norm": "liger_rms_norm: true, or kernels: auto",
    "unsloth_rope": "liger_rope: true, or kernels: auto",
}
# The type of the weights, and the precision that it asks for.
PRECISIONS: dict[str, tuple[str, Any]] = {
    "auto": ("bf16", "auto"),
    "bfloat16": ("bf16", True),
    "float16": ("fp16", True),
    "float32": ("float32", True),
}
PRECISION_KEYS = ("bf16", "fp16", "float32")

Meant = tuple[str, Any] | str | None


def with_todays_names(document: Document) -> tuple[Document, list[Problem]]:
    """The document with the keys that are meant in place of old ones; a note for each, or what is wrong with it."""
    found: list[Problem] = []
    meanings: dict[str, Callable[[Mapping[str, Any]], Meant]] = {
        "batch_size": _accumulation,
        "torch_dtype": _precision,
    }
    if isinstance(document.data.get("tokens"), dict):
        meanings["tokens"] = _roles
    for old in [key for key in document.data if key in RENAMED or key in meanings]:
        meant = meanings[old](document.data) if old in meanings else (RENAMED[old], document.data[old])
        if isinstance(meant, str):
            found.append(problem_at((old,), document, "conflict", meant))
            document = _without(document, old)
            continue
        assert meant is not None
        new, value = meant
        given = document.data.get(new)
        problem = problem_at((old,), document, "renamed", f"read as {new}: {json.dumps(value)}")
        document = _without(document, old)
        if given is None or given == value or (new in PRECISION_KEYS and given == "auto"):
            document = _with(document, new, value, old)
        else:
            message = f"means the same as {new}, which is {json.dumps(given)} here; keep one"
            problem = replace(problem, kind="conflict", message=message)
        found.append(problem)
    return document, [*found, *_removed(document)]


def _removed(document: Document) -> list[Problem]:
    return [
        problem_at((key,), document, "removed", f"is gone; write {REMOVED[key]}")
        for key, value in document.data.items()
        if key in REMOVED and value
    ]


def _accumulation(data: Mapping[str, Any]) -> Meant:
    """Axolotl's `batch_size` counts the sequences of a step; what is wrong with it as text."""
    size, micro = data["batch_size"], data.get("micro_batch_size")
    steps = data.get("gradient_accumulation_steps")
    counts = [size, *(number for number in (micro, steps) if number is not None)]
    if not all(type(number) is int and number > 0 for number in counts):
        return "must be a whole number of sequences of a step, as must micro_batch_size"
    if micro is None and steps is None:
        return "says how many sequences a step has; give micro_batch_size, how many of them at a time, too"
    if micro is None:
        return (
            "with gradient_accumulation_steps needs micro_batch_size; keep these two, and remove batch_size"
        )
    if steps is not None and steps * micro != size:
        return (
            f"{size} is not micro_batch_size: {micro} times gradient_accumulation_steps: {steps}; keep these two, and "
            f"remove batch_size"
        )
    if size % micro:
        return f"{size} is not a multiple of micro_batch_size: {micro}"
    return "gradient_accumulation_steps", size // micro


def _roles(data: Mapping[str, Any]) -> Meant:
    """Tokens that are named by their roles; a list of them stays what it is."""
    return "special_tokens", data["tokens"]


def _precision(data: Mapping[str, Any]) -> Meant:
    """What `torch_dtype` asks for; Axolotl drops the key, and goes by bf16, fp16 and float32."""
    given = str(data["torch_dtype"]).removeprefix("torch.")
    if given not in PRECISIONS:
        return f"{given!r} is not one of {', '.join(PRECISIONS)}; write bf16, fp16 or float32: true"
    meant, _ = PRECISIONS[given]
    others = [key for key in PRECISION_KEYS if key != meant and data.get(key) not in (None, False, "auto")]
    if others:
        return f"{given} and {others[0]}: {json.dumps(data[others[0]])} ask for two precisions; keep one"
    return PRECISIONS[given]


def _without(document: Document, key: str) -> Document:
    data, raw = ({k: v for k, v in part.items() if k != key} for part in (document.data, document.raw))
    return replace(document, data=data, raw=raw)


def _with(document: Document, key: str, value: Any, old: str) -> Document:
    """The document with a key that stands where an old one does."""
    keys, values = dict(document.keys), dict(document.values)
    for spans in (keys, values):
        for place in [place for place in spans if place[0:1] == (old,)]:
            spans.setdefault((key, *place[1:]), spans[place])
    return replace(
        document,
        data={**document.data, key: value},
        raw={**document.raw, key: value},
        keys=keys,
        values=values,
    )
