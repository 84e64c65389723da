"""The body of a method that learns from what the model itself samples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from tunemill.stages.artifacts import Adapter, Model, PromptData
from tunemill.stages.data.rows.prompt_rows import PromptRows
from tunemill.stages.errors import RowError, SettingError, UserError
from tunemill.stages.evaluation.loading_body import end_ids_of
from tunemill.stages.models.positions_body import check_positions
from tunemill.stages.models.words_body import load_words
from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.loop_body import train
from tunemill.stages.training.method import Method, OwnLoss
from tunemill.stages.training.online.batches_body import counts, loss_of
from tunemill.stages.training.online.environment_keys import ENVIRONMENTS
from tunemill.stages.training.online.examples_body import places
from tunemill.stages.training.online.held_out_body import HeldOut, held_out_of
from tunemill.stages.training.online.plan import Plan
from tunemill.stages.training.online.player_body import player
from tunemill.stages.training.online.policy_keys import PolicyKeys
from tunemill.stages.training.online.reward_asking import Asked, Rewards
from tunemill.stages.training.online.reward_columns import check_columns
from tunemill.stages.training.online.rewards import Scores
from tunemill.stages.training.online.rewards_body import open_rewards
from tunemill.stages.training.online.rounds_body import Rounds


def learn(
    config: PolicyKeys,
    base_model: Model,
    training_data: PromptData,
    out: Workspace,
    report: Report,
    evaluation_data: PromptData | None = None,
    stored_adapter: Adapter | None = None,
    reward_models: list[Model] | None = None,
) -> None:
    """Train, going on from the journal and the last complete checkpoint, and write the model or the adapter.

    Several processes share out what is sampled; the first of them alone asks the rewards. Raises RowError where there
    are fewer prompts than a round takes, SettingError where the longest has no room in a server that would be started,
    UserError where every reward fails or where what samples is not what is trained, and what `train` raises.
    """
    out = with_journal_of_all(config, out)
    prompts = PromptRows(training_data.rows)
    held_out = held_out_of(training_data, evaluation_data)
    for rows in (prompts, held_out):
        if rows is not None:
            check_rewards(config, rows)
    check_enough(config, config.plan(len(prompts)))
    check_prompts(config, prompts)
    longest = config.longest_prompt(prompts.longest)
    if config.starts_vllm:
        config.room_for(longest + config.max_completion_length)
    with (
        nobodys_rewards() if not ranks.is_first() else open_rewards(config, reward_models or []) as rewards,
        opened_rounds(config, prompts, rewards, base_model, out, report) as rounds,
    ):
        method = method_of(config, rounds, prompts, report)
        if held_out is not None:
            method = scoring(config, method, rounds, held_out, rewards, base_model, out, report)
        train(config.going_on_from(stored_adapter), base_model, method, out, report)


def with_journal_of_all(config: PolicyKeys, out: Workspace) -> Workspace:
    """The folders, with the checkpoints of the first process, among which the journal lies that all read and write.

    Raises UserError where a process does not see that folder.
    """
    ranks.meet(config.ddp_timeout)
    shared = ranks.shared_folder(out.checkpoints)
    if shared is None:
        raise UserError(
            f"rl: what is sampled is told from one process to the others through the folder of checkpoints, and the "
            f"machines that train together do not share {out.checkpoints}. Put the store on a disk that all see"
        )
    return replace(out, checkpoints=shared)


@contextmanager
def nobodys_rewards() -> Iterator[Rewards]:
    """Of a process that is told by the first what completions are worth."""

    def ask(_asked: Asked) -> Scores:
        raise AssertionError("the first process asks the rewards")

    yield ask


@contextmanager
def opened_rounds(
    config: PolicyKeys,
    prompts: PromptRows,
    rewards: Rewards,
    base_model: Model,
    out: Workspace,
    report: Report,
    longest: Callable[[int], int] | None = None,
) -> Iterator[Rounds]:
    """The rounds of a training, whose engine is ended when the block ends.

    `longest` says of a prompt's row how many tokens a completion may have; None: as many as the settings say.
    """
    check_asks(prompts)
    words = load_words(base_model.path)
    rounds = Rounds(
        config, prompts, words, ends_of(config, base_model, words), rewards, base_model, out, report, longest
    )
    try:
        yield rounds
    finally:
        rounds.close()


def ends_of(config: PolicyKeys, base_model: Model, words: Any) -> frozenset[int]:
    """The tokens that end a completion. Raises SettingError for one that is asked for and that there is not."""
    beyond = [one for one in sorted(config.stop_token_ids) if one >= len(words)]
    if beyond:
        raise SettingError(
            f"trl.generation_kwargs: stop_token_ids: {beyond[0]}: the base model's tokenizer has {len(words)} tokens, "
            f"from 0"
        )
    return config.stop_token_ids | frozenset(end_ids_of(base_model.path) | ({words.eos_token_id} - {None}))


def method_of(config: PolicyKeys, rounds: Rounds, prompts: PromptRows, report: Report) -> Method:
    """What the loop asks: examples that are made round by round, and their loss."""
    return Method(
        examples=rounds.slots,
        collator=lambda _model: places,
        check=partial(check_model, config, config.longest_prompt(prompts.longest), report),
        own_loss=OwnLoss(
            partial(loss_of, config), partial(counts, config), derived=rounds.derived, made=rounds.made
        ),
        prepare=rounds.meet,
    )


def scoring(
    config: PolicyKeys,
    method: Method,
    rounds: Rounds,
    held_out: PromptRows,
    rewards: Rewards,
    base_model: Model,
    out: Workspace,
    report: Report,
    longest: Callable[[int], int] | None = None,
) -> Method:
    """The method, which scores the policy by its answers to held-out prompts. `longest` is of their rows."""
    check_asks(held_out)
    check_prompts(config, held_out)
    words = load_words(base_model.path)
    ends = ends_of(config, base_model, words)
    opened = partial(player, config, base_model, words, ends, lambda: rounds.step)
    found = HeldOut(
        config, held_out, words, ends, rewards, out.checkpoints, lambda: rounds.step, report, opened, longest
    )

    def check(model: Any, collator: Any) -> None:
        method.check(model, collator)
        check_model(config, config.longest_prompt(held_out.longest), report, model, collator)

    return replace(method, check=check, score=found.score)


def check_asks(prompts: PromptRows) -> None:
    """Raise RowError where a prompt has no token."""
    if not prompts.shortest:
        raise RowError("a prompt has no token, and nothing can be said behind it. Add a prompt to the rows")


def check_rewards(config: PolicyKeys, rows: PromptRows) -> None:
    """Raise SettingError where a function must be given a column that no row has, nor what samples adds."""
    if config.rollout_func is not None:
        # What else it gives is known when it has run.
        return
    beside = {ENVIRONMENTS} if config.environment_factory is not None else set()
    check_columns(config.own_rewards, config.reward_code or [], rows.columns | beside)


def check_enough(config: PolicyKeys, plan: Plan) -> None:
    """Raise RowError where the prompts are not enough for one round."""
    if not plan.rounds_of_epoch:
        raise RowError(
            f"a round samples completions of {plan.groups} prompts ({plan.per_round} completions, trl.num_generations: "
            f"{config.num_generations}), and there are {plan.prompts}. Add prompts, raise trl.num_generations, or "
            f"lower micro_batch_size or gradient_accumulation_steps"
        )


def check_prompts(config: PolicyKeys, prompts: PromptRows) -> None:
    """Raise RowError for a prompt that is a text, where tools are told to the model by messages."""
    if not config.calls_tools:
        return
    for row in range(len(prompts)):
        value = prompts[row].value
        if not value or isinstance(value, str) or not isinstance(value[-1].get("content"), str | list):
            raise RowError(
                f"prompt {row + 1} is {value!r:.60}, and a model that calls tools is asked by messages. Make messages "
                f'of it: [{{"role": "user", "content": ...}}]'
            )


def check_model(config: PolicyKeys, longest: int, report: Report, model: Any, _collator: Any) -> None:
    """Refuse a model with too few positions for the longest prompt and its completion."""
    tokens = longest + config.max_completion_length
    check_positions(plain_model(model), tokens, "the longest prompt with trl.max_completion_length", report)
