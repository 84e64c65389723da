"""`trl.generation_kwargs`: what is asked of generation by the names of vLLM and transformers.

What both engines do alike is honoured. What has a key of its own below `trl` belongs there, and what would give a token
another probability than the model gives it, or would end a completion inside of a token, is refused.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator

from tunemill.stages.choices import nearest
from tunemill.stages.declaration import Idle, StageConfig, YamlMark

KEY = "trl.generation_kwargs"
# Tokens that end a completion, by the names of vLLM and of transformers.
ENDS = ("stop_token_ids", "eos_token_id")
# The keys below `trl` that say the same, by the names that the two libraries have for it.
OWN: Mapping[str, str] = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")},
    "max_tokens": "max_completion_length",
    "max_new_tokens": "max_completion_length",
    "n": "num_generations",
    "num_return_sequences": "num_generations",
}
OTHER_ODDS = (
    "a token would have another probability than the model gives it, and would be learned from wrongly"
)
INSIDE = "a text may end inside of a token. Name the tokens that end a completion, by stop_token_ids"
BY_ITSELF = (
    "what is sampled is fixed by itself: each completion has a seed of its own, and its log-probabilities"
)
# Why others are refused, and the value that asks for nothing.
REFUSED: Mapping[str, tuple[str, Any]] = {
    **dict.fromkeys(("stop", "stop_strings"), (INSIDE, None)),
    **dict.fromkeys(("bad_words", "bad_words_ids", "suppress_tokens", "allowed_token_ids"), (OTHER_ODDS, None)),
    **dict.fromkeys(("logit_bias", "sequence_bias", "structured_outputs", "guided_decoding"), (OTHER_ODDS, None)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "min_tokens", "min_new_tokens"), (OTHER_ODDS, 0)),
    **dict.fromkeys(("no_repeat_ngram_size", "length_penalty"), (OTHER_ODDS, 0)),
    **dict.fromkeys(("seed", "logprobs", "prompt_logprobs"), (BY_ITSELF, None)),
    "do_sample": ("completions are drawn; for the likeliest token lower trl.temperature", True),
    "num_beams": ("completions are drawn, each by itself", 1),
    "ignore_eos": ("a completion ends where the model ends it", False),
    "skip_special_tokens": ("rewards are given texts without special tokens", True),
}  # fmt: skip


class GenerationKeys(StageConfig):
    """How completions end, beside the tokens that the model ends them by."""

    generation_kwargs: Annotated[dict[str, Any], YamlMark(KEY)] = Field(
        {},
        description="for what has no key of its own below trl: stop_token_ids (or eos_token_id), tokens that end a "
        "completion beside the model's own",
    )

    @field_validator("generation_kwargs")
    @classmethod
    def _are_honoured(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, asked in value.items():
            reason = _fault(name, asked)
            if reason is not None:
                raise ValueError(reason)
        return value

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """The tokens that end a completion beside the model's own."""
        given = (self.generation_kwargs.get(name) for name in ENDS)
        return frozenset(one for value in given if value is not None for one in _listed(value))

    def idle(self) -> Iterator[Idle]:
        """What is said by keys of their own already, and what is as it is anyway."""
        yield from super().idle()
        if self.generation_kwargs and not self.stop_token_ids:
            yield Idle(
                "generation_kwargs", "it names no token that ends a completion, and the rest is so anyway"
            )


def conflicts(asked: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of what is asked the names with another value than the key below `trl` has, and why not."""
    for name, key in OWN.items():
        if name in asked and asked[name] != own[key]:
            yield (
                name,
                f"{KEY}: {name}: {asked[name]}, and trl.{key} is {own[key]}. Write trl.{key}: {asked[name]}",
            )


def _fault(name: str, asked: Any) -> str | None:
    if name in OWN:
        return None
    if name in ENDS:
        wrong = [] if asked is None else [one for one in _listed(asked) if not _is_id(one)]
        if not wrong:
            return None
        return f"{name}: {wrong[0]!r}: a token is a whole number from 0, or a list of such"
    if name in REFUSED:
        reason, nothing = REFUSED[name]
        return None if asked == nothing or asked in ([], {}) else f"{name}: {reason}. Take it out"
    known = (*ENDS, *OWN)
    near = nearest(name, known)
    meant = f" Did you mean {near[0]}?" if near else ""
    return f"{name}: not one of {', '.join(known)}, which both engines know.{meant} Take it out"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
