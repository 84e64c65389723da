"""What is looked at of prepared rows, in the figures of the stages that prepare them. Each bound has its reason."""

from tunemill.stages.checks import Check, Figures, Seen, none_of, number, share_at_most

# A distribution with a heavy tail (log-normal, sigma 1) has 3% of its rows beyond the border of "far longer".
MOST_FAR_LONGER = 0.10
# The longest of a million rows of that distribution is 80 times the mean.
TIMES_MEAN = 100
# What is not that much longer than the mean is no row of another kind, whatever the quartiles say.
LEAST_TIMES_MEAN = 3
# Rows that are read up to four times teach nearly as much as new ones: Muennighoff and others, 2023, "Scaling
# data-constrained language models".
OFTEN_ENOUGH = 4

FIT_THE_FORMAT = share_at_most(
    "rows_fit_the_format",
    0.05,
    ("rejected",),
    ("rejected", "rows"),
    "rows set aside",
    reason="A few damaged rows are usual; more than one in twenty says that the file or its type is another one than "
    "was meant.",
    advice="look at rejected.jsonl in the artifact, which says why of each row; mend the rows, or choose another type",
)

TRAINED_ON = share_at_most(
    "rows_have_something_to_train_on",
    0.10,
    ("rows_without_trained_tokens",),
    ("rows",),
    "rows all masked",
    reason="They are left out. A few are questions without an answer; more than one in ten says that the mask does "
    "not fit the rows.",
    advice="look at the table of tokens by role; set roles_to_train or train_on_inputs, or choose the type that fits",
)

WRITTEN = share_at_most(
    "template_writes_all_messages",
    0.05,
    ("messages_left_out", "message_fields_left_out", "tools_left_out"),
    ("rows",),
    "texts or fields of messages, or rows' tools, left out by the chat template, for so many rows",
    reason="What the template leaves out is never learnt.",
    advice="choose a chat_template that writes them, or say in message_property_mappings where the text is",
    unwritten=True,
)


def _lengths(figures: Figures) -> Seen | None:
    rows, longest, mean = (number(figures, name) for name in ("rows", "longest_row", "mean_tokens_per_row"))
    if not rows or not longest or not mean:
        return None
    far, times = number(figures, "rows_far_longer") or 0, longest / mean
    text = f"the longest row has {longest:.0f} tokens, {times:.3g} times the mean; {far:.0f} of {rows:.0f} are far out"
    advice = (
        "look at the longest rows: they may be several rows in one, or of another source. Split them, or drop them by "
        "sequence_len"
    )
    is_odd = times > TIMES_MEAN or (far > MOST_FAR_LONGER * rows and times > LEAST_TIMES_MEAN)
    return Seen(text, advice if is_odd else None)


LENGTHS = Check(
    "row_lengths_are_alike",
    f"No row is longer than {TIMES_MEAN} times the mean, and at most {MOST_FAR_LONGER:.0%} are far longer than most. "
    "Of texts with a long tail 3% are, and the longest of a million has 80 times the mean: beyond that rows of "
    "different kinds are in one dataset.",
    _lengths,
)

DISTINCT = share_at_most(
    "rows_are_distinct",
    0.05,
    ("repeated_rows",),
    ("rows",),
    "rows that occur again",
    reason="Each counts as one more epoch over it; by chance long texts do not repeat.",
    advice="set dataset_exact_deduplication: true, or look where the copies come from",
    unwritten=True,
)

DROPPED = share_at_most(
    "few_rows_are_dropped",
    0.20,
    (
        "dropped_too_long",
        "dropped_too_short",
        "dropped_untrained",
        "dropped_equal_answers",
        "dropped_empty_answers",
    ),
    (
        "rows",
        "held_out_rows",
        "dropped_too_long",
        "dropped_too_short",
        "dropped_untrained",
        "dropped_equal_answers",
        "dropped_empty_answers",
    ),
    "rows dropped",
    reason="With more than one in five gone, what is left is other data than was given.",
    advice="the table of rows by dataset says where they went: raise sequence_len, lower min_sample_len, set "
    "excess_length_strategy: truncate, or mend the rows",
)

WHOLE = share_at_most(
    "answers_are_whole",
    0.05,
    ("rows_cut_in_answer",),
    ("rows",),
    "rows cut in the middle of an answer",
    reason="An answer without its end teaches not to end.",
    advice="raise sequence_len, or drop long rows (excess_length_strategy: drop)",
    unwritten=True,
)

TRUNCATED = share_at_most(
    "few_rows_are_truncated",
    0.20,
    ("truncated",),
    ("rows", "held_out_rows"),
    "rows truncated",
    reason="With more than one in five cut, sequence_len decides what is learnt.",
    advice="raise sequence_len, or shorten the rows",
)


def _masked(figures: Figures) -> Seen | None:
    tokens, trained = number(figures, "tokens"), number(figures, "trained_tokens")
    if not tokens or trained is None:
        return None
    text = f"{trained:.0f} of {tokens:.0f} tokens are trained on ({trained / tokens:.2%}; at least 1%)"
    advice = "look at roles_to_train, train_on_inputs and the type of the rows; shorten long prompts"
    return Seen(text, advice if trained < 0.01 * tokens else None)


TOKENS = Check(
    "tokens_are_trained_on",
    "At least 1% of the tokens are trained on: below that nearly all of the time goes into what is masked.",
    _masked,
)


def _enough(figures: Figures) -> Seen | None:
    have, needed = number(figures, "sequences"), number(figures, "sequences_needed")
    if not have or needed is None:
        return None
    times = max(1.0, needed / have)
    text = f"{have:.0f} sequences of the {needed:.0f} that are needed: each is read {times:.3g} times"
    return Seen(text, "give more texts, or lower max_steps" if times > OFTEN_ENOUGH else None)


ENOUGH = Check(
    "source_is_large_enough",
    f"No text is read more than {OFTEN_ENOUGH} times: up to there repeated texts teach nearly as much as new ones "
    "(Muennighoff and others, 2023).",
    _enough,
)

NOT_EMPTY = share_at_most(
    "texts_are_not_empty",
    0.05,
    ("empty_texts",),
    ("texts",),
    "empty texts",
    reason="More than one in twenty says that the text is in another field.",
    advice="look at the field that pretraining_dataset reads as text",
)

UNSEEN = none_of(
    "held_out_rows_are_unseen",
    "rows_trained_on",
    "rows",
    "held-out rows that are trained on too",
    reason="What a model scores on them says nothing of rows that it has not seen.",
    advice="set dataset_exact_deduplication: true, or take them out of one of the two",
)

NEARLY_UNSEEN = share_at_most(
    "held_out_rows_are_new",
    0.05,
    ("rows_nearly_trained_on",),
    ("rows",),
    "held-out rows nearly like one that is trained on",
    reason="A few near copies are usual in texts from the web; more make scores too good.",
    advice="take them out of the held-out rows, or split by source instead of by row",
)

UNLEARNT = none_of(
    "held_out_rows_are_unseen",
    "held_out_rows_learnt_from",
    "held_out_rows",
    "held-out rows that are learnt from too",
    reason="What a model scores on them says nothing of rows that it has not seen.",
    advice="set dataset_exact_deduplication: true",
)

UNASKED = none_of(
    "held_out_prompts_are_unseen",
    "held_out_rows_learnt_from",
    "held_out_rows",
    "held-out prompts that are learnt from too",
    reason="How it answers them says nothing of prompts that it was never asked.",
    advice="take rows out that ask the same, or give held-out rows of their own (test_datasets)",
)

EMPTY_ANSWERS = share_at_most(
    "answers_are_not_empty",
    0.05,
    ("rows_with_empty_answers",),
    ("rows",),
    "rows with an answer that says nothing",
    reason="They are left out; more than one in twenty says that the answers are in another field.",
    advice="look at the examples in the artifact; choose the type or the fields that hold the answers",
)

EQUAL_ANSWERS = share_at_most(
    "answers_differ",
    0.05,
    ("rows_with_equal_answers",),
    ("rows",),
    "rows with the same text as chosen and as rejected answer",
    reason="They teach nothing and are left out; more than one in twenty says that both are read from one field.",
    advice="look at the examples in the artifact; choose the type or the fields that hold the two answers",
)


def _labels(figures: Figures) -> Seen | None:
    good, bad = number(figures, "good_answers"), number(figures, "bad_answers")
    if good is None or bad is None:
        return None
    advice = "add answers of the other kind, or look at the field that holds the label"
    return Seen(f"{good:.0f} good and {bad:.0f} bad answers", None if good and bad else advice)


LABELS = Check(
    "answers_of_both_kinds",
    "There are good answers and bad ones: of one kind alone there is nothing to tell apart.",
    _labels,
)

LEAKED = none_of(
    "held_out_rows_are_unseen",
    "leaked_rows",
    "held_out_rows",
    "held-out rows that are in the training data, whole or inside of longer rows",
    reason="What a model scores on them says nothing of rows that it has not seen.",
    advice="take them out of one of the two: `tunemill run` lists them with their files and lines; pipeline.leakage: "
    "fail lets none pass",
)

OF_FILE = (FIT_THE_FORMAT,)
OF_TOKENS = (FIT_THE_FORMAT, TRAINED_ON, WRITTEN, LENGTHS)
OF_PREFERENCES = (FIT_THE_FORMAT, EMPTY_ANSWERS, EQUAL_ANSWERS, LABELS)
OF_TRAINING = (DISTINCT, DROPPED, TRUNCATED, WHOLE, TOKENS)
OF_PREFERENCE_TRAINING = (DISTINCT, DROPPED, TRUNCATED, UNLEARNT)
OF_PROMPTS = (UNASKED,)
OF_TEXTS = (ENOUGH, NOT_EMPTY, TOKENS)
OF_HELD_OUT = (UNSEEN, NEARLY_UNSEEN, DROPPED, TRUNCATED)
OF_LEAKAGE = (LEAKED,)
