"""How much memory an online training takes: its steps, and beside them what answers prompts."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tunemill.kernels.functions.selective_log_softmax import reference
from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.errors import UserError
from tunemill.stages.memory import Above, read_above
from tunemill.stages.models.answers_body import takes_logits_to_keep
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.batch_shapes_body import BatchShape
from tunemill.stages.training.estimate_body import Plan, plan_of, tell
from tunemill.stages.training.online.policy_body import asked, entropy_of
from tunemill.stages.training.online.policy_keys import PolicyKeys

# Bytes of each score over the vocabulary that a token is drawn from: in float32 as they are, their log-softmax, what is
# left of them and what is chosen; in float64 the probabilities and their sums.
DRAWING = 4 * 4 + 2 * 8


def estimate(config: PolicyKeys, out: Workspace, report: Report) -> None:
    """Estimate for the settings and for each that would save, with what `out` holds of the nodes above.

    Raises UserError where the model's config is not there or what is drawn has no shape of its own, SettingError for
    what this machine cannot honour.
    """
    if not config.samples_groups:
        raise UserError(
            "ebft.mode: strided: how long a sequence is depends on a document's anchors, so its memory cannot be told"
        )
    above = read_above(out.data)
    shape, notes = completed_shape(config, above)
    plan, others = plan_of(config, above, (shape, notes))
    answers = None if config.use_vllm and not config.evaluates else generation_bytes
    share = (config.vllm_share or 0.0) if config.starts_vllm else 0.0
    whole = replace(plan, losses=losses_of, answering=answers, share_of_server=share)
    tell(whole, [*others, *uncounted(config)], out, report)


def completed_shape(config: PolicyKeys, above: Mapping[str, Above]) -> tuple[BatchShape, list[str]]:
    """A micro batch of the longest prompts, each with as long a completion as may be; and what was assumed."""
    # Held-out prompts are of the same stage, and of another edge.
    folder = next((one.folder for edge, one in above.items() if edge.endswith(".training_data")), None)
    longest, notes = config.sequence_len, []
    if folder is None:
        notes = [f"the prompts are not prepared yet: each is taken to have {longest} tokens"]
    else:
        longest = PromptRows(Path(folder) / "rows.arrow").longest
    tokens = longest + config.max_completion_length
    return BatchShape(config.micro_batch_size, tokens, not config.attention_needs_gpu, False, True), notes


def uncounted(config: PolicyKeys) -> Iterator[str]:
    """What is beside the training on its device, or in it for a moment."""
    if config.starts_vllm and config.vllm_share is None:
        yield (
            "the server of vLLM is not counted: of the GPU that it runs on it takes most, unless "
            "trl.vllm_gpu_memory_utilization says how much"
        )
    elif config.starts_vllm and torch.cuda.is_available():
        yield f"the server of vLLM is counted with the {config.vllm_share:.0%} of the GPU that it takes"
    elif config.starts_vllm:
        yield f"the server of vLLM is not counted: of a GPU it would take {config.vllm_share:.0%}"
    if getattr(config, "ce_coef", 0):
        yield "ebft.ce_coef: the pass over the answers, beside that over completions, is not counted"


def losses_of(config: Any, model: Any, shape: BatchShape) -> tuple[Any, Any]:
    """The loss of a micro batch of completions; their scores are no result."""
    ids_bl = torch.zeros((shape.rows, shape.length), dtype=torch.long)
    kept = min(config.max_completion_length + 1, shape.length)
    arguments: dict[str, Any] = {
        "input_ids": ids_bl,
        "attention_mask": torch.ones_like(ids_bl),
        "use_cache": False,
    }
    if takes_logits_to_keep(model):
        arguments["logits_to_keep"] = kept
    logits_btv = model(**arguments).logits[:, -kept:-1]
    if logits_btv.dtype != torch.float32:
        logits_btv = logits_btv.float()
    if config.temperature != 1:
        logits_btv = logits_btv / config.temperature
    tokens_bt = ids_bl[:, -kept + 1 :]
    if torch.cuda.is_available():
        # The kernel keeps nothing beside the scores, and its gradient is as large as they are.
        log_p_bt = logits_btv.gather(-1, tokens_bt[..., None])
    else:
        log_p_bt = reference(logits_btv, tokens_bt)
    with torch.set_grad_enabled(bool(config.entropy_coef)):
        entropy_bt = torch.stack([entropy_of(logits_tv) for logits_tv in logits_btv])
    return config.entropy_coef * entropy_bt.sum() - log_p_bt.sum(), None


def generation_bytes(plan: Plan, model: Any) -> int:
    """What the model needs beside its weights to answer prompts side by side: the cache of all tokens, and scores."""
    config: Any = plan.config
    rows = config.groups_at_once * config.num_generations
    scores: int = rows * plan.model_config.vocab_size * DRAWING
    with asked(model) as plain:
        ids_bl = torch.zeros((rows, plan.shape.length), dtype=torch.long)
        cache = plain(input_ids=ids_bl, use_cache=True, **one_place(plain)).past_key_values
    kept: int = sum(one.untyped_storage().nbytes() for one in tensors_of(cache))
    return scores + kept


def one_place(model: Any) -> dict[str, int]:
    """Arguments by which a model gives the scores of the last place alone."""
    return {"logits_to_keep": 1} if takes_logits_to_keep(model) else {}


def tensors_of(cache: Any) -> list[torch.Tensor]:
    """The tensors that a cache of any kind holds, each once."""
    found: dict[int, torch.Tensor] = {}

    def look(value: Any, depth: int) -> None:
        if isinstance(value, torch.Tensor):
            found[value.untyped_storage()._cdata] = value
        elif isinstance(value, list | tuple):
            for one in value:
                look(one, depth)
        elif hasattr(value, "__dict__") and depth:
            for one in vars(value).values():
                look(one, depth - 1)

    look(cache, 2)
    return list(found.values())
