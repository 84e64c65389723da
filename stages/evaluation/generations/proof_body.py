"""Whether a server has the model that it is said to have: log-probabilities of the same tokens, from it and from ours.

So a server with another model is found, and one with the base of an adapter where the adapter has changed more than
rounding does.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.loading_body import load_answering
from tunemill.stages.evaluation.questions import Question
from tunemill.stages.models.loading_body import is_quantized
from tunemill.stages.models.vllm.apart import mean_apart
from tunemill.stages.models.vllm.client_body import Client
from tunemill.stages.models.vllm.log_p_body import OF_FLOAT32, OF_HALF, OF_QUANTIZED, own_log_p, served_log_p
from tunemill.stages.report import Report

# How many rows are compared, and how many tokens of each.
ROWS, TOKENS = 8, 128


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
    theirs = [served_log_p(client, probe) for probe in probes]
    loaded, _ = load_answering(model, adapter)
    apart = mean_apart(theirs, [own_log_p(loaded, probe) for probe in probes])
    allowed = _allowed(loaded, model)
    if adapter is not None:
        with loaded.disable_adapter():
            from_base = mean_apart(theirs, [own_log_p(loaded, probe) for probe in probes])
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


def _allowed(loaded: Any, model: Model) -> float:
    if is_quantized(model.path):
        return OF_QUANTIZED
    return OF_FLOAT32 if next(loaded.parameters()).dtype == torch.float32 else OF_HALF
