"""What is looked at of a training: whether it was healthy, and whether anything was learnt."""

import math

from tunemill.stages.checks import Check, Figures, Seen, all_finite, number

# With fewer steps the mean of a quarter of them says nothing.
FEWEST_STEPS = 8
# With fewer steps a loss that stays where it is may be chance.
FEWEST_TO_FALL = 100
# So many standard errors are no chance: one in 700.
ERRORS = 3.0
# The scaler of 16-bit floats begins with some steps that are infinite, by design.
MOST_INFINITE = 0.10
# A gradient that is so many times the usual one, and comes late, is a jump. In healthy trainings it is 10 at most.
TIMES_USUAL = 100.0
# The difference between two evaluations is a few percent by chance.
RISE = 0.10


def _falls(figures: Figures) -> Seen | None:
    steps, start, end, error = (
        number(figures, name) for name in ("steps", "loss_at_start", "loss_at_end", "loss_change_error")
    )
    if steps is None or start is None or end is None or error is None or steps < FEWEST_STEPS:
        return None
    text = f"loss {start:.4g} in the first quarter of {steps:.0f} steps, {end:.4g} in the last"
    if end - start > ERRORS * error:
        return Seen(
            text,
            "it rose: lower learning_rate, warm up longer, or look whether later rows are of another kind",
        )
    if steps >= FEWEST_TO_FALL and end >= start:
        return Seen(
            text,
            "it did not fall: raise learning_rate, train longer, or look whether the base knows the rows already",
        )
    return Seen(text)


def _gradient(figures: Figures) -> Seen | None:
    steps, none, infinite, usual, late = (
        number(figures, name)
        for name in (
            "steps",
            "steps_without_gradient",
            "steps_with_infinite_gradient",
            "median_gradient_norm",
            "largest_late_gradient_norm",
        )
    )
    if not steps or none is None or infinite is None or usual is None or late is None:
        return None
    text = f"gradient norm {usual:.4g} at the median, {late:.4g} at most in the second half"
    if infinite > MOST_INFINITE * steps:
        return Seen(
            f"{text}; infinite in {infinite:.0f} of {steps:.0f} steps",
            "use bf16 in place of fp16, or lower learning_rate",
        )
    if none > MOST_INFINITE * steps:
        return Seen(
            f"{text}; zero in {none:.0f} of {steps:.0f} steps",
            "nothing flows back: look at what is trained (lora_target_modules, unfrozen_parameters) and at the rows",
        )
    if late > TIMES_USUAL * usual:
        return Seen(
            text, "it jumped late: set max_grad_norm, lower learning_rate, or look at the rows of that step"
        )
    return Seen(text)


def _learnt(figures: Figures) -> Seen | None:
    share, looked_at = number(figures, "changed_weights_share"), number(figures, "weights_looked_at")
    if share is None or not looked_at:
        return None
    text = f"{share:.1%} of {looked_at:.0f} trained weights that were looked at have changed"
    if share > 0.01:
        return Seen(text)
    advice = (
        "the steps are lost in the rounding of the weights' type: raise learning_rate, train in float32 (bf16: false), "
        "or with an adapter"
    )
    return Seen(text, advice, is_wrong=share == 0)


def _held_out(figures: Figures) -> Seen | None:
    first, lowest, last = (
        number(figures, name) for name in ("first_eval_loss", "lowest_eval_loss", "last_eval_loss")
    )
    if first is None or lowest is None or last is None:
        return None
    text = f"held-out loss {first:.4g} at first, {lowest:.4g} at its lowest, {last:.4g} at the end"
    # With the best weights put back, or a loss that is no loss in nats, the end does not matter.
    if figures.get("best_step") is not None or lowest <= 0 or not math.isfinite(last):
        return Seen(text)
    advice = "the model learns its rows by heart: train fewer epochs, or set load_best_model_at_end: true"
    return Seen(text, advice if last > (1 + RISE) * lowest else None)


OF_TRAINED = (
    all_finite(
        "loss_is_finite",
        "the training",
        "lower learning_rate or max_grad_norm, warm up longer, or use bf16 in place of fp16",
    ),
    Check(
        "loss_falls",
        f"The mean loss of the last quarter of the steps is not above that of the first by more than {ERRORS:g} "
        f"standard errors; of {FEWEST_TO_FALL} steps or more it is below.",
        _falls,
    ),
    Check(
        "gradient_is_healthy",
        f"The gradient is infinite or zero in at most {MOST_INFINITE:.0%} of the steps (16-bit floats begin with some "
        f"by design), and in the second half never {TIMES_USUAL:g} times its median.",
        _gradient,
    ),
    Check(
        "weights_have_changed",
        "More than 1% of the trained weights have changed: of those that stay, each step was lost in rounding.",
        _learnt,
    ),
    Check(
        "held_out_loss_stays_low",
        f"At the end the held-out loss is at most {RISE:.0%} above its lowest: chance moves it by less.",
        _held_out,
    ),
)
