"""The engine that samples of the trained model itself, by `generate` of transformers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tunemill.stages.evaluation.batching_body import Batching, batching_of, left_padded
from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.training.online.engine import Completion, SamplingSettings
from tunemill.stages.training.online.policy_body import asked


class TransformersEngine:
    """Samples of `model`, on its device. `end_ids`: the tokens that end a completion."""

    def __init__(self, model: Any, end_ids: frozenset[int]) -> None:
        self._model = model
        self._ends = sorted(end_ids)
        self._policy = ""
        self._batching: Batching | None = None

    def sync(self, policy: str, step: int) -> None:  # noqa: ARG002 - the protocol's
        """The model is the policy itself: only its name is new."""
        self._policy = policy

    def close(self) -> None:
        """Nothing was started."""

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: SamplingSettings
    ) -> list[Completion]:
        """A completion of each prompt, side by side where the model allows that without another result."""
        with asked(self._model) as model, _without_settings(model):
            if self._batching is None:
                self._batching = batching_of(model)
            found: list[Completion] = []
            for first, end in _batches(prompts, self._batching):
                found += self._batch(model, prompts[first:end], seeds[first:end], sampling)
        return found

    def _batch(
        self, model: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: SamplingSettings
    ) -> list[Completion]:
        device = next(model.parameters()).device
        draws = Draws(sampling, prompts, seeds, device)
        settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            use_cache=True,
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=self._ends or None,
            pad_token_id=self._ends[0] if self._ends else 0,
        )
        inputs = {name: tensor.to(device) for name, tensor in left_padded(prompts).items()}
        made_bl = model.generate(
            **inputs, generation_config=settings, logits_processor=LogitsProcessorList([draws])
        )
        new = made_bl[:, inputs["input_ids"].shape[1] :].tolist()
        log_p = torch.stack(draws.log_p, dim=1).tolist()
        return [self._completion(*one) for one in zip(new, log_p, seeds, strict=True)]

    def _completion(self, tokens: list[int], log_p: list[float], seed: int) -> Completion:
        ends = (place for place, token in enumerate(tokens, 1) if token in self._ends)
        end = next(ends, None)
        kept = len(tokens) if end is None else end
        reason: Any = "length" if end is None else "stop"
        return Completion(tuple(tokens[:kept]), tuple(log_p[:kept]), reason, seed, self._policy)


class Draws(LogitsProcessor):  # type: ignore[misc]
    """Draws a token for each row, by numbers that are the row's own, and leaves `generate` nothing but it to choose.

    `log_p` has of each step [B] log-probabilities of the drawn tokens.
    """

    def __init__(
        self, sampling: SamplingSettings, prompts: Sequence[Sequence[int]], seeds: Sequence[int], device: Any
    ) -> None:
        self._sampling = sampling
        self._prompts = prompts
        self._step = 0
        self._seen_bv: Tensor | None = None
        self.log_p: list[Tensor] = []
        drawn = [
            torch.rand(
                sampling.max_new_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
            )
            for seed in seeds
        ]
        self._uniform_bt = torch.stack(drawn).to(device)
        warpers: list[Any] = []
        if sampling.top_k is not None:
            warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p is not None:
            warpers.append(TopPLogitsWarper(sampling.top_p))
        if sampling.min_p is not None:
            warpers.append(MinPLogitsWarper(sampling.min_p))
        self._warpers = warpers

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[B, V] zeros but where the drawn tokens are."""
        log_p_bv = (scores.float() / self._sampling.temperature).log_softmax(-1)
        chosen_bv = self._penalized(input_ids, scores.float()) / self._sampling.temperature
        for warper in self._warpers:
            chosen_bv = warper(input_ids, chosen_bv)
        sums_bv = chosen_bv.double().softmax(-1).cumsum(-1)
        # The last sum is 1 up to rounding, and a number below 1 must find a token.
        target_b1 = self._uniform_bt[:, self._step, None] * sums_bv[:, -1:]
        tokens_b1 = torch.searchsorted(sums_bv, target_b1, right=True).clamp(max=scores.shape[-1] - 1)
        self.log_p.append(log_p_bv.gather(-1, tokens_b1).squeeze(-1))
        self._step += 1
        return torch.zeros_like(scores).scatter(-1, tokens_b1, 1.0)

    def _penalized(self, input_ids: Tensor, scores_bv: Tensor) -> Tensor:
        """The logits, smaller where a token stands in the prompt or its completion already; padding counts nothing."""
        penalty = self._sampling.repetition_penalty
        if penalty == 1:
            return scores_bv
        if self._seen_bv is None:
            self._seen_bv = torch.zeros_like(scores_bv, dtype=torch.bool)
            for row, prompt in enumerate(self._prompts):
                self._seen_bv[row, torch.tensor(list(prompt), device=scores_bv.device)] = True
        else:
            self._seen_bv = self._seen_bv.scatter(-1, input_ids[:, -1:], value=True)
        smaller_bv = torch.where(scores_bv > 0, scores_bv / penalty, scores_bv * penalty)
        return torch.where(self._seen_bv, smaller_bv, scores_bv)


@contextmanager
def _without_settings(model: Any) -> Iterator[None]:
    """While this lasts, nothing of the model's own settings for generation fills what a call leaves open."""
    holders = {id(one): one for one in (model, plain_model(model))}.values()
    own = [(one, one.generation_config) for one in holders]
    for one in holders:
        one.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for one, settings in own:
            one.generation_config = settings


def _batches(prompts: Sequence[Sequence[int]], batching: Batching) -> list[tuple[int, int]]:
    """Where to cut prompts: nowhere, between those of another length, or between any two."""
    if batching == "padded":
        return [(0, len(prompts))]
    changes = (
        place
        for place in range(1, len(prompts))
        if batching == "alone" or len(prompts[place]) != len(prompts[place - 1])
    )
    borders = [0, *changes]
    return list(zip(borders, [*borders[1:], len(prompts)], strict=True))
