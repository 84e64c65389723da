"""Log-probabilities of the same tokens from a server and from a model here, by which a model is known.

Two models differ in them on nearly every token; the same model in another program only by rounding.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tunemill.stages.errors import SettingError
from tunemill.stages.models.vllm.client_body import Client

# Mean difference in nats that rounding makes. vLLM beside transformers on a CPU: 1e-6 in float32, 0.01 in bfloat16,
# 0.06 where what goes into products is rounded to 8 bits.
OF_FLOAT32, OF_HALF, OF_QUANTIZED = 0.002, 0.05, 0.15


def served_log_p(client: Client, ids: Sequence[int]) -> list[float]:
    """The server's log-probability of each token behind the first. Raises SettingError where it tells none."""
    reply = client.complete(ids, max_tokens=1, temperature=0.0, prompt_logprobs=0)
    try:
        told = reply["prompt_logprobs"][1:]
        return [float(one[str(token)]["logprob"]) for token, one in zip(ids[1:], told, strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        raise SettingError(
            f"engine: {client.url}: tells no log-probabilities of prompts, by which a model is known. Is it vLLM's "
            f"server, and does it allow them (--max-logprobs)?"
        ) from error


def own_log_p(loaded: Any, ids: Sequence[int]) -> list[float]:
    """The same of a model that is loaded here."""
    device = next(loaded.parameters()).device
    with torch.no_grad():
        logits_lv = loaded(torch.tensor([ids], device=device)).logits[0, :-1].float()
    log_p_l = logits_lv.log_softmax(-1).gather(-1, torch.tensor(ids[1:], device=device)[:, None])
    found: list[float] = log_p_l[:, 0].tolist()
    return found
