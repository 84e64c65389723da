"""What is looked at of models: the figures of their proofs. A proof that failed has stopped its stage already."""

from collections.abc import Sequence

from tunemill.stages.checks import Check, Figures, Seen, number, within

AGAIN = "compute it again with --refresh; if it stays so, report the family of the model"
PROVEN = "The stage has proven it, and would have stopped; these are its figures."


def _effect(figures: Figures) -> Seen | None:
    change, difference = number(figures, "max_abs_logit_change"), number(figures, "max_abs_logit_difference")
    if change is None or difference is None:
        return None
    text = (
        f"the adapter moves a logit by {change:.4g} at most, rounding the merged weights by {difference:.4g}"
    )
    if change == 0:
        return Seen(text, "the adapter does nothing: look at the checks of its training", is_wrong=True)
    advice = (
        "its effect is lost in the rounding of the base's type: serve it beside the base, or train longer"
    )
    return Seen(text, advice if difference > change / 2 else None)


def _proof(figures: Figures) -> Seen | None:
    proof, missing = figures.get("proof"), figures.get("proof_missing")
    if proof is None:
        return None
    return Seen(f"proof: {proof}" + (f"; not proven: {missing}" if missing else ""))


PROOF = Check(
    "export_is_proven",
    "The file says what its model says. Where something cannot be compared on this machine, it is told here.",
    _proof,
)

OF_MERGED = (
    within(
        "merge_is_proven",
        "max_abs_logit_difference",
        "logit_tolerance",
        "the largest difference of a logit from base and adapter",
        reason=PROVEN,
        advice=AGAIN,
    ),
    Check(
        "adapter_has_an_effect",
        "The adapter moves logits by more than twice what rounding the merged weights does.",
        _effect,
    ),
)


def _bounded(names: Sequence[str], key: str, what: str) -> Check:
    """The first of these figures that is there is within its bound."""
    looks = [
        within(key, name, f"{name}_bound", name.replace("_", " "), reason=PROVEN, advice=AGAIN)
        for name in names
    ]

    def look(figures: Figures) -> Seen | None:
        found = [seen for check in looks if (seen := check.look(figures)) is not None]
        return next((seen for seen in found if not seen.passed), found[0] if found else None)

    return Check(key, f"{what} {PROVEN}", look)


RELOADED = _bounded(
    ("max_abs_difference_reloaded",),
    "loads_as_it_was_saved",
    "Loaded by stock transformers it computes what it computed before it was saved.",
)
AGREES = _bounded(
    ("kl_to_unquantized", "median_kl_to_unquantized", "max_abs_difference_to_training", "top1_disagreement"),
    "says_what_the_model_said",
    "What it says differs from the model before by no more than rounding explains.",
)

OF_QUANTIZED = (RELOADED, AGREES)
OF_EXPORTED = (PROOF, RELOADED, AGREES)


def _rounding(figures: Figures) -> Seen | None:
    error = number(figures, "largest_relative_error")
    if error is None:
        return None
    text = f"the weights of a module are off by {error:.1%} of their size at most (at most 25%)"
    advice = "name the module in llm_int8_skip_modules, or use load_in_8bit: true"
    return Seen(text, advice if not error <= 0.25 else None)


OF_QUANTIZED_BASE = (
    Check(
        "weights_are_near",
        "In no module the weights are off by more than 25% of their size (root mean squares): four bits cost 10% of "
        "normal weights.",
        _rounding,
    ),
)
