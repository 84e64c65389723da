"""What is looked at of evaluations, whatever their gates ask."""

from tunemill.stages.checks import all_finite, share_at_most

FINITE = all_finite(
    "scores_are_finite",
    "the evaluation",
    "look at the model: its logits are infinite, or its weights damaged",
)
OF_SCORES = (FINITE,)

OF_GENERATIONS = (
    share_at_most(
        "answers_come_to_an_end",
        0.50,
        ("cut_off",),
        ("rows",),
        "answers cut off",
        reason="Of an answer that was cut off a metric sees a part; with half of them it measures the limit.",
        advice="raise max_new_tokens of the evaluation; a model that never ends may lack the end token in its training",
    ),
)

OF_JUDGEMENTS = (
    share_at_most(
        "verdicts_can_be_read",
        0.10,
        ("without_verdict",),
        ("rows",),
        "answers of the judge without a verdict",
        reason="They count nowhere; more than one in ten changes the score.",
        advice="look at the table of judgements; say in the prompt how to answer, or mend `verdict`",
    ),
)
