"""Completions of several turns: the model calls tools, is told what they gave, and goes on.

A turn of all completions is sampled side by side, and then their environments are asked side by side. What tools gave
stands among a completion's tokens, has no log-probability, and nothing is learned from it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from tunemill.stages.artifacts import Model, Tokenizer
from tunemill.stages.data.rows.prompt_rows import Prompt
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.own_classes import dotted
from tunemill.stages.training.online.calls_body import Talk
from tunemill.stages.training.online.engine import Completion, SamplingSettings
from tunemill.stages.training.online.environment_calls import Begin, Called, Finish, Finished, Told, Use
from tunemill.stages.training.online.environment_keys import FACTORY, TOOLS
from tunemill.stages.training.online.environment_source import REWARD
from tunemill.stages.training.online.environments import Environments, environments
from tunemill.stages.training.online.episode import Episode, Message
from tunemill.stages.training.online.keys import OnlineKeys

Generate = Callable[[Sequence[Sequence[int]], Sequence[int], SamplingSettings], list[Completion]]


@dataclass(frozen=True)
class Start:
    """A prompt that is to be answered, of a row (from 0), a seed, and the most tokens behind it."""

    row: int
    prompt: Prompt
    seed: int
    most: int


@dataclass(frozen=True)
class Played:
    """What became of it; `prompt_ids` are the tokens of the prompt, with its tools where there are any."""

    prompt_ids: tuple[int, ...]
    completion: Completion
    episode: Episode | None


Player = Callable[[Generate, Sequence[Start], SamplingSettings], list[Played]]


@dataclass
class _Going:
    """A completion that goes on."""

    prompt: list[Message]
    seed: int
    most: int
    prompt_ids: tuple[int, ...] = ()
    ids: list[int] = field(default_factory=list)
    log_p: list[float] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    last: Completion | None = None
    calls: int = 0
    failures: list[str] = field(default_factory=list)
    failure: str | None = None

    @property
    def room(self) -> int:
        return self.most - len(self.ids)

    @property
    def asked(self) -> list[Any]:
        """The calls of its last message, where it may go on."""
        whole = self.last is not None and self.last.finish_reason == "stop"
        return (self.messages[-1].get("tool_calls") or []) if whole and self.failure is None else []


def answers(
    player: Player | None, generate: Generate, starts: Sequence[Start], sampling: SamplingSettings
) -> list[Played]:
    """A completion of each start, of one turn, or of several where there is something to be called."""
    sampling = replace(sampling, max_new_tokens=max(one.most for one in starts))
    if player is not None:
        return player(generate, starts, sampling)
    said = generate([one.prompt.ids for one in starts], [one.seed for one in starts], sampling)
    return [
        Played(one.prompt.ids, completion.cut(one.most), None)
        for one, completion in zip(starts, said, strict=True)
    ]


@contextmanager
def calling_player(config: OnlineKeys, base_model: Model, ends: frozenset[int]) -> Iterator[Player]:
    """What samples completions that may call tools, until the block ends.

    Raises SettingError where the code does not load or its tools do not describe themselves, where the chat template
    cannot tell them to a model, and where nothing says how good a completion is.
    """
    key = " and ".join(
        key for key, is_set in ((FACTORY, config.environment_factory), (TOOLS, config.tools)) if is_set
    )
    called = Called(
        config.called_factory,
        [dotted(name) for name in config.tools],
        config.called_code,
        key,
        config.environment_reward,
    )
    with environments(called, config.reward_timeout) as homes:
        described = homes.describe()
        if described.has_reward and not config.environment_rewards:
            raise SettingError(
                f"{FACTORY}: {config.environment_factory} has a {REWARD} that none of its files beside the YAML "
                f"defines. Define it there, be it by super().{REWARD}()"
            )
        if not described.has_reward and not config.reward_funcs:
            raise SettingError(
                f"{FACTORY}: {config.environment_factory} has no {REWARD}, and there are no trl.reward_funcs: nothing "
                f"says how good a completion is"
            )
        talk = Talk(Tokenizer(base_model.path), config.template_variables, ends, described.tools)
        yield lambda generate, starts, sampling: play(
            generate, talk, homes, starts, sampling, config.max_tool_calling_iterations, config.sequence_len
        )


def play(
    generate: Generate,
    talk: Talk,
    homes: Environments,
    starts: Sequence[Start],
    sampling: SamplingSettings,
    most_turns: int | None,
    longest_prompt: int,
) -> list[Played]:
    """A completion of each start, whose prompt is messages. Raises UserError for a prompt that is too long."""
    try:
        going = _begun(talk, homes, starts, longest_prompt)
        active = [one for one in going if one.failure is None]
        turn = 0
        while active:
            _say(generate, talk, active, sampling, turn)
            turn += 1
            if most_turns is not None and turn > most_turns:
                break
            active = _call(talk, homes, {going.index(one): one for one in active if one.asked})
        return _finished(talk, homes, going)
    finally:
        homes.end_all()


def _begun(talk: Talk, homes: Environments, starts: Sequence[Start], longest: int) -> list[_Going]:
    episodes: dict[int, int] = {}
    begin = {
        place: Begin(
            f"{one.seed}",
            {"prompt": one.prompt.value, **one.prompt.columns},
            episodes.setdefault(one.row, one.seed),
        )
        for place, one in enumerate(starts)
    }
    told = homes.ask(begin)
    return [_start(talk, one, told[place], longest) for place, one in enumerate(starts)]


def _start(talk: Talk, start: Start, told: Told, longest: int) -> _Going:
    prompt = start.prompt.value
    assert isinstance(prompt, list), "checked"
    going = _Going(prompt, start.seed, start.most, failure=told.failure)
    if told.value is not None:
        *before, last = prompt
        content = last["content"]
        said = [{"type": "text", "text": told.value}] if isinstance(content, list) else told.value
        going.prompt = [*before, {**last, "content": content + said}]
    going.prompt_ids = talk.prompt_ids(going.prompt)
    if len(going.prompt_ids) > longest:
        raise UserError(
            f"prompt {start.row + 1}: with its tools and what the environment says of itself it has "
            f"{len(going.prompt_ids)} tokens, and sequence_len is {longest}. Raise it"
        )
    return going


def _say(
    generate: Generate, talk: Talk, active: Sequence[_Going], sampling: SamplingSettings, turn: int
) -> None:
    """A turn of the model in each of them."""
    before = [[*one.prompt_ids, *one.ids] for one in active]
    seeds = [seed_of(one.seed, turn) for one in active]
    most = replace(sampling, max_new_tokens=max(one.room for one in active))
    for one, given, said in zip(active, before, generate(before, seeds, most), strict=True):
        one.last = said.cut(one.room)
        one.ids += one.last.ids
        one.log_p += one.last.log_p
        one.mask += [True] * len(one.last.ids)
        one.messages.append(talk.message_of(one.last.ids, given))


def seed_of(seed: int, turn: int | str) -> int:
    """Each turn has a seed of its own; the first that of the completion."""
    if turn == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {turn}".encode()).digest()[:8], "big") >> 1


def _call(talk: Talk, homes: Environments, calling: Mapping[int, _Going]) -> list[_Going]:
    """What was called is asked and told; those that can go on."""
    told = homes.ask({place: Use(one.asked) for place, one in calling.items() if one.room > 0})
    found = []
    for place, answer in told.items():
        one = calling[place]
        one.calls += len(one.asked)
        if answer.failure is not None:
            one.failure = answer.failure
            continue
        one.failures += [used.failure for used in answer.value if used.failure is not None]
        messages = [{"role": "tool", "name": used.name, "content": used.content} for used in answer.value]
        suffix = talk.suffix_ids(messages)
        # What does not fit is not told, and the completion ends with its call.
        if len(suffix) >= one.room:
            continue
        one.messages += messages
        one.ids += suffix
        one.log_p += [0.0] * len(suffix)
        one.mask += [False] * len(suffix)
        found.append(one)
    return found


def _finished(talk: Talk, homes: Environments, going: Sequence[_Going]) -> list[Played]:
    told = homes.ask({place: Finish() for place, one in enumerate(going) if one.failure is None})
    policy = next((one.last.policy for one in going if one.last is not None), "")
    for one in going:
        if one.last is None:
            # Nothing was said. A completion has a token, and nothing is learned from this one.
            one.last = Completion((talk.end,), (0.0,), "stop", one.seed, policy)
            one.ids, one.log_p, one.mask = [talk.end], [0.0], [False]
    return [_played(one, told.get(place, Told(failure=one.failure))) for place, one in enumerate(going)]


def _played(one: _Going, told: Told) -> Played:
    left = Finished(None, None) if told.failure is not None else told.value
    episode = Episode(
        one.prompt,
        one.messages,
        tuple(one.mask),
        one.calls,
        tuple(one.failures),
        left.state,
        left.reward,
        told.failure,
    )
    assert one.last is not None, "said"
    said = replace(one.last, ids=tuple(one.ids), log_p=tuple(one.log_p), seed=one.seed)
    return Played(one.prompt_ids, said, episode)
