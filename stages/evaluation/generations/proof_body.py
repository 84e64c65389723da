"""Whether a server has the model that it is said to have: log-probabilities of the same tokens, from it and from ours.

Two models differ in them on nearly every token; the same model in another program only by rounding. So a server with
another model is found, and one with the base of an adapter where the adapter has changed more than rounding does.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.loading_body import load_answering
from tunemill.stages.evaluation.questions import Question
from tunemill.stages.models.loading_body import is_quantized
from tunemill.stages.models.vllm.client_body import Client
from tunemill.stages.report import Report

# How many rows are compared, and how many tokens of each.
ROWS, TOKENS = 8, 128
# Mean difference in nats that rounding makes. vLLM beside transformers on a CPU: 1e-6 in float32, 0.01 in bfloat16,
# 0.06 where what goes into products is rounded to 8 bits.
OF_FLOAT32, OF_HALF, OF_QUANTIZED = 0.002, 0.05, 0.15


def prove_served(
    client: Client,
    model: Model,
    adapter: Adapter | None,
    questions: Sequence[Question],
    room: int,
    report: Report,
) -> None:
    """Raises SettingError where the server has another model, or not the adapter; it takes `room` tokens at least."""
    longest = min(TOKENS, room - 1)
    probes = [list((*one.prompt, *one.reference)[:longest]) for one in questions[:ROWS]]
    theirs = [_served(client, probe) for probe in probes]
    loaded, _ = load_answering(model, adapter)
    apart = _apart(theirs, [_own(loaded, probe) for probe in probes])
    allowed = _allowed(loaded, model)
    if adapter is not None:
        with loaded.disable_adapter():
            from_base = _apart(theirs, [_own(loaded, probe) for probe in probes])
        if from_base < apart:
            raise SettingError(
                f"engine: {client.url}: {client.model} answers as the base does ({from_base:.2g} nats from it), not as "
                f"the adapter beside it ({apart:.2g}). Start vLLM with --lora-modules NAME={adapter.path}, and name it "
                f"with `model`"
            )
    if apart > allowed:
        hint = ". vLLM rounds float32 to bfloat16 unless it is started with --dtype float32" * (
            allowed == OF_FLOAT32
        )
        raise SettingError(
            f"engine: {client.url}: {client.model} is another model: log-probabilities of {sum(map(len, theirs))} "
            f"tokens are {apart:.2g} nats from those of {model.path} in the mean, where rounding makes up to "
            f"{allowed}{hint}"
        )
    report.log(
        f"{client.url}: {client.model} is this model: log-probabilities of {sum(map(len, theirs))} tokens are "
        f"{apart:.2g} nats from transformers' in the mean, where up to {allowed} is rounding"
    )


def _served(client: Client, ids: Sequence[int]) -> list[float]:
    """The server's log-probability of each token behind the first."""
    reply = client.complete(ids, max_tokens=1, temperature=0.0, prompt_logprobs=0)
    try:
        told = reply["prompt_logprobs"][1:]
        return [float(one[str(token)]["logprob"]) for token, one in zip(ids[1:], told, strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        raise SettingError(
            f"engine: {client.url}: tells no log-probabilities of prompts, by which a model is known. Is it vLLM's "
            f"server, and does it allow them (--max-logprobs)?"
        ) from error


def _own(loaded: Any, ids: Sequence[int]) -> list[float]:
    device = next(loaded.parameters()).device
    with torch.no_grad():
        logits_lv = loaded(torch.tensor([ids], device=device)).logits[0, :-1].float()
    log_p_l = logits_lv.log_softmax(-1).gather(-1, torch.tensor(ids[1:], device=device)[:, None])
    found: list[float] = log_p_l[:, 0].tolist()
    return found


def _apart(some: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """Mean difference of all values, without its sign; infinite where one of them is no number."""
    differences = [
        abs(a - b) for one, other in zip(some, others, strict=True) for a, b in zip(one, other, strict=True)
    ]
    return sum(differences) / len(differences) if all(d == d for d in differences) else float("inf")


def _allowed(loaded: Any, model: Model) -> float:
    if is_quantized(model.path):
        return OF_QUANTIZED
    return OF_FLOAT32 if next(loaded.parameters()).dtype == torch.float32 else OF_HALF
