"""Completions are handed to the rewards, and what they say is kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunemill.stages.data.rows.prompt_rows import Prompt, PromptRows
from tunemill.stages.training.online.episode import Episode
from tunemill.stages.training.online.reward_asking import Asked
from tunemill.stages.training.online.rewards import Failure, Scores
from tunemill.stages.training.online.rollouts import Rollout


def answer_of(words: Any, ids: Sequence[int]) -> str:
    """The text of a completion, without the token that ends it and its like."""
    return str(words.decode(list(ids), skip_special_tokens=True))


def asked_about(
    prompts: PromptRows, rollouts: Sequence[Rollout], group: int, step: int, first_row: int | None = None
) -> Asked:
    """The completions of whole groups as rewards get them; `first_row`: where they begin in their round, if a part.

    Of a prompt that is a text the completion is one too; of messages it is a list of one message, or of all its turns.
    """
    given = [prompts[one.prompt_row] for one in rollouts]
    names = sorted({name for prompt in given for name in prompt.columns})
    return Asked(
        prompts=[
            prompt.value if one.episode is None else one.episode.prompt
            for prompt, one in zip(given, rollouts, strict=True)
        ],
        completions=[_said(prompt, one) for prompt, one in zip(given, rollouts, strict=True)],
        ids=[list(one.completion.ids) for one in rollouts],
        columns={name: [prompt.columns.get(name) for prompt in given] for name in names},
        group=group,
        step=step,
        round=rollouts[0].round,
        prompt_ids=[one.prompt_ids for one in rollouts],
        episodes=_episodes(rollouts),
        first_row=first_row,
    )


def _episodes(rollouts: Sequence[Rollout]) -> list[Episode] | None:
    found = [one.episode for one in rollouts if one.episode is not None]
    return found or None


def _said(prompt: Prompt, one: Rollout) -> Any:
    if one.episode is not None:
        return one.episode.messages
    text = one.text
    return [{"role": "assistant", "content": text}] if prompt.is_conversation else text


def as_json(scores: Scores) -> dict[str, Any]:
    """As the journal keeps them."""
    return {
        "names": scores.names,
        "values": scores.values_nf,
        "failures": [vars(one) for one in scores.failures],
        "metrics": dict(scores.metrics),
    }


def scores_of(stored: Mapping[str, Any]) -> Scores:
    """What the journal has kept."""
    failures = tuple(Failure(tuple(one["rows"]), one["name"], one["words"]) for one in stored["failures"])
    return Scores(tuple(stored["names"]), stored["values"], failures, stored["metrics"])
