"""What is looked at of a training that learns from its own samples."""

from tunemill.stages.checks import Check, Figures, Seen, number
from tunemill.stages.training.checks import OF_TRAINED

# Means of the first and the last quarter of the steps are kept of these.
PERIODS = ("reward", "completion_length", "entropy", "truncated", "zero_advantage")
# The largest of these is kept: how many steps old what is learned from is, how far the policy has moved since (nats).
OF_AGE = ("staleness", "policy_moved")
# Nats a token. Further away most completions are masked, and what is left says little.
MOST_MOVED = 0.25
# Nats a token between engine and trainer. Rounding makes 0.01 in bfloat16; another model makes more than 1.
MOST_MISMATCH, STOP_MISMATCH = 0.05, 0.5
# Of a policy that has collapsed every completion is the same.
LEAST_ENTROPY = 0.01
# A reward that is bought with length: it rises while completions are so many times as long.
TIMES_AS_LONG = 2.0
MOST_TRUNCATED, MOST_LEVEL = 0.5, 0.8


def _pair(figures: Figures, name: str) -> tuple[float, float] | None:
    start, end = (number(figures, f"{name}_at_{when}") for when in ("start", "end"))
    return None if start is None or end is None else (start, end)


def _entropy(figures: Figures) -> Seen | None:
    found = _pair(figures, "entropy")
    if found is None:
        return None
    text = (
        f"entropy {found[0]:.4g} nats a token in the first quarter of the steps, {found[1]:.4g} in the last"
    )
    advice = (
        "lower learning_rate, set trl.beta or trl.entropy_coef, or raise trl.epsilon_high above trl.epsilon"
    )
    # One that was certain from the start has not collapsed.
    return Seen(text, advice if found[1] < LEAST_ENTROPY <= found[0] else None)


def _length(figures: Figures) -> Seen | None:
    reward, length = _pair(figures, "reward"), _pair(figures, "completion_length")
    truncated = number(figures, "truncated_at_end")
    if reward is None or length is None or truncated is None:
        return None
    text = (
        f"completions have {length[0]:.0f} tokens in the first quarter of the steps and {length[1]:.0f} in the last, "
        f"{truncated:.0%} of which are cut off"
    )
    is_longer = length[1] > TIMES_AS_LONG * length[0] and reward[1] > reward[0]
    if is_longer or truncated > MOST_TRUNCATED:
        return Seen(
            text,
            "look at completions (log_completions: true): does the reward ask for length? Add one that does not, set "
            "mask_truncated_completions: true, or raise max_completion_length",
        )
    return Seen(text)


def _mismatch(figures: Figures) -> Seen | None:
    found = number(figures, "largest_mismatch")
    if found is None:
        return None
    text = f"engine and trainer differ by {found:.4g} nats a token at most (at most {MOST_MISMATCH:g})"
    return Seen(text, "use the same precision for both, or correct for it" if found > MOST_MISMATCH else None)


def _age(figures: Figures) -> Seen | None:
    steps, moved = number(figures, "largest_staleness"), number(figures, "largest_policy_moved")
    if steps is None:
        return None
    text = f"completions are of a policy that is {steps:.3g} steps older in the mean at most"
    if moved is None:
        return Seen(text)
    text += f", from which the one that learns is {moved:.3g} nats a token away (at most {MOST_MOVED:g})"
    advice = (
        "lower trl.max_staleness, trl.prefetch_depth or learning_rate, or set trl.off_policy_mask_threshold"
    )
    return Seen(text, advice if moved > MOST_MOVED else None)


def _signal(figures: Figures) -> Seen | None:
    found = _pair(figures, "zero_advantage")
    if found is None:
        return None
    text = (
        f"all completions are as good in {found[0]:.0%} of the groups of the first quarter of the steps, and in "
        f"{found[1]:.0%} of the last"
    )
    advice = (
        "choose prompts of which the model answers some and not all, or raise num_generations or temperature"
    )
    return Seen(text, advice if found[0] > MOST_LEVEL else None)


def _held_out(figures: Figures) -> Seen | None:
    first, highest, last = (
        number(figures, name) for name in ("first_eval_reward", "highest_eval_reward", "last_eval_reward")
    )
    learned = _pair(figures, "reward")
    if first is None or highest is None or last is None or learned is None:
        return None
    text = f"held-out reward {first:.4g} at first, {highest:.4g} at its highest, {last:.4g} at the end"
    # With the best weights put back the end does not matter.
    if figures.get("best_step") is not None:
        return Seen(text)
    advice = (
        "the model learns its prompts by heart: give more prompts, train fewer steps, set trl.beta, or "
        "load_best_model_at_end: true"
    )
    return Seen(text, advice if last < first and learned[1] > learned[0] else None)


# A loss of completions that are compared with each other does not fall, and its gradient is 0 where all are as good.
OF_ONLINE = (
    *(check for check in OF_TRAINED if check.name in ("loss_is_finite", "weights_have_changed")),
    Check(
        "entropy_has_not_collapsed",
        f"The entropy does not fall below {LEAST_ENTROPY:g} nats a token: then all completions are the same, and "
        f"nothing more is learned.",
        _entropy,
    ),
    Check(
        "reward_is_not_length",
        f"Completions that are better are not {TIMES_AS_LONG:g} times as long, and at most {MOST_TRUNCATED:.0%} are "
        f"cut off: a reward may be bought with length.",
        _length,
    ),
    Check(
        "engine_is_the_trainer",
        f"What sampled the completions says of their tokens what the trained model says, within {MOST_MISMATCH:g} "
        f"nats.",
        _mismatch,
    ),
    Check(
        "samples_are_recent",
        f"The policy that learns is within {MOST_MOVED:g} nats a token of the one that has sampled, where that is an "
        f"older one: what is sampled ahead, or learned from again.",
        _age,
    ),
    Check(
        "held_out_reward_has_not_fallen",
        "The reward of held-out prompts does not end below where it began while that of the others rises.",
        _held_out,
    ),
    Check(
        "groups_differ",
        f"At first at most {MOST_LEVEL:.0%} of the groups have completions that are all as good: of those nothing is "
        f"learned.",
        _signal,
    ),
)
