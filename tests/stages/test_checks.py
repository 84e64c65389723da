# ruff: noqa: E501  one case is one line
"""Checks of results: each is seen failing on its figures, just beyond its bound, and passing at it."""

import pytest

from tunemill.pipelines.graph.result_checks import checks_of, failed
from tunemill.stages.registry import STAGES

BY_NAME = {stage.name: stage for stage in STAGES}
TRAINED = {"steps": 100, "loss_at_start": 2.0, "loss_at_end": 1.0, "loss_change_error": 0.1}
GRADIENT = {
    "steps": 100,
    "steps_without_gradient": 0,
    "steps_with_infinite_gradient": 0,
    "median_gradient_norm": 1.0,
    "largest_late_gradient_norm": 9.0,
}
HELD_OUT = {"first_eval_loss": 2.0, "lowest_eval_loss": 1.0, "last_eval_loss": 1.1}
HELD_OUT_REWARD = {
    "first_eval_reward": 0.2,
    "highest_eval_reward": 0.6,
    "last_eval_reward": 0.2,
    "reward_at_start": 0.1,
    "reward_at_end": 0.5,
}
LENGTHS = {"rows": 100, "mean_tokens_per_row": 10.0}
MERGED = {"max_abs_logit_difference": 0.1, "max_abs_logit_change": 0.3, "logit_tolerance": 0.2}
LONGER = {
    "reward_at_start": 0.1,
    "reward_at_end": 0.5,
    "completion_length_at_start": 10.0,
    "completion_length_at_end": 20.0,
    "truncated_at_end": 0.5,
}
# stage, check, figures that pass, those that make it fail
# fmt: off
CASES = [
    ("dataset", "rows_fit_the_format", {"rows": 95, "rejected": 5}, {"rejected": 6}),
    (
        "tokenized",
        "rows_have_something_to_train_on",
        {"rows": 100, "rows_without_trained_tokens": 10},
        {"rows_without_trained_tokens": 11},
    ),
    ("tokenized", "template_writes_all_messages", {"rows": 100}, {"messages_left_out": 6}),
    ("tokenized", "template_writes_all_messages", {"rows": 100, "tools_left_out": 5}, {"tools_left_out": 6}),
    ("tokenized", "row_lengths_are_alike", {**LENGTHS, "longest_row": 1000}, {"longest_row": 1001}),
    ("tokenized", "row_lengths_are_alike", {**LENGTHS, "longest_row": 31, "rows_far_longer": 10}, {"rows_far_longer": 11}),
    ("tokenized", "row_lengths_are_alike", {**LENGTHS, "longest_row": 30, "rows_far_longer": 25}, {"longest_row": 31}),
    ("preferences", "answers_are_not_empty", {"rows": 20, "rows_with_empty_answers": 1}, {"rows_with_empty_answers": 2}),
    ("preferences", "answers_differ", {"rows": 20, "rows_with_equal_answers": 1}, {"rows_with_equal_answers": 2}),
    ("preferences", "answers_of_both_kinds", {"good_answers": 1, "bad_answers": 9}, {"good_answers": 0}),
    ("training_data", "rows_are_distinct", {"rows": 20, "repeated_rows": 1}, {"repeated_rows": 2}),
    ("training_data", "few_rows_are_dropped", {"rows": 8, "dropped_too_long": 2}, {"dropped_untrained": 1}),
    ("training_data", "few_rows_are_truncated", {"rows": 10, "truncated": 2}, {"truncated": 3}),
    ("training_data", "answers_are_whole", {"rows": 20, "rows_cut_in_answer": 1}, {"rows_cut_in_answer": 2}),
    ("training_data", "tokens_are_trained_on", {"tokens": 100, "trained_tokens": 1}, {"trained_tokens": 0}),
    ("preference_data", "held_out_rows_are_unseen", {"held_out_rows": 9}, {"held_out_rows_learnt_from": 1}),
    ("preference_data", "few_rows_are_dropped", {"rows": 8, "dropped_equal_answers": 2}, {"dropped_empty_answers": 1}),
    ("prompt_data", "held_out_prompts_are_unseen", {"held_out_rows": 9}, {"held_out_rows_learnt_from": 1}),
    ("pretraining_data", "source_is_large_enough", {"sequences": 10, "sequences_needed": 40}, {"sequences_needed": 41}),
    ("pretraining_data", "texts_are_not_empty", {"texts": 20, "empty_texts": 1}, {"empty_texts": 2}),
    ("evaluation_data", "held_out_rows_are_unseen", {"rows": 9}, {"rows_trained_on": 1}),
    ("evaluation_data", "held_out_rows_are_new", {"rows": 20, "rows_nearly_trained_on": 1}, {"rows_nearly_trained_on": 2}),
    ("leakage", "held_out_rows_are_unseen", {"held_out_rows": 9, "leaked_rows": 0}, {"leaked_rows": 1}),
    ("sft", "loss_is_finite", {"train_loss": 1.0}, {"last_loss": float("nan")}),
    ("sft", "loss_falls", {**TRAINED, "steps": 8, "loss_at_end": 2.3}, {"loss_at_end": 2.31}),
    ("sft", "loss_falls", TRAINED, {"loss_at_end": 2.0}),
    ("dpo", "gradient_is_healthy", GRADIENT, {"steps_with_infinite_gradient": 11}),
    ("dpo", "gradient_is_healthy", GRADIENT, {"steps_without_gradient": 11}),
    ("dpo", "gradient_is_healthy", GRADIENT, {"largest_late_gradient_norm": 101.0}),
    ("sft", "weights_have_changed", {"weights_looked_at": 9, "changed_weights_share": 0.5}, {"changed_weights_share": 0.0}),
    ("sft", "held_out_loss_stays_low", HELD_OUT, {"last_eval_loss": 1.11}),
    ("grpo", "entropy_has_not_collapsed", {"entropy_at_start": 0.4, "entropy_at_end": 0.01}, {"entropy_at_end": 0.009}),
    ("grpo", "reward_is_not_length", LONGER, {"completion_length_at_end": 21.0}),
    ("gdpo", "reward_is_not_length", LONGER, {"truncated_at_end": 0.51}),
    ("grpo", "engine_is_the_trainer", {"largest_mismatch": 0.05}, {"largest_mismatch": 0.051}),
    ("grpo", "samples_are_recent", {"largest_staleness": 3.0, "largest_policy_moved": 0.25}, {"largest_policy_moved": 0.26}),
    ("grpo", "held_out_reward_has_not_fallen", HELD_OUT_REWARD, {"last_eval_reward": 0.19}),
    ("grpo", "groups_differ", {"zero_advantage_at_start": 0.8, "zero_advantage_at_end": 1.0}, {"zero_advantage_at_start": 0.81}),
    ("merged", "merge_is_proven", MERGED, {"max_abs_logit_difference": float("nan")}),
    ("merged", "adapter_has_an_effect", MERGED, {"max_abs_logit_change": 0.1}),
    (
        "quantized",
        "says_what_the_model_said",
        {"kl_to_unquantized": 0.1, "kl_to_unquantized_bound": 0.1},
        {"kl_to_unquantized": 0.11},
    ),
    (
        "exported_compressed",
        "loads_as_it_was_saved",
        {"max_abs_difference_reloaded": 0.0, "max_abs_difference_reloaded_bound": 0.1},
        {"max_abs_difference_reloaded": 0.2},
    ),
    ("quantized_base", "weights_are_near", {"largest_relative_error": 0.2}, {"largest_relative_error": 0.3}),
    ("evaluation", "scores_are_finite", {"eval_loss": 1.0}, {"eval_loss": float("inf")}),
    ("generations", "answers_come_to_an_end", {"rows": 4, "cut_off": 2}, {"cut_off": 3}),
    ("judgements", "verdicts_can_be_read", {"rows": 10, "without_verdict": 1}, {"without_verdict": 2}),
]
# fmt: on


def outcome(stage, check, metrics):
    (found,) = [one for one in checks_of("node", BY_NAME[stage], metrics) if one.check == check]
    return found


@pytest.mark.parametrize(("stage", "check", "fine", "bad"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_a_check_passes_at_its_bound_and_fails_beyond_and_says_what_to_do(stage, check, fine, bad):
    passed = outcome(stage, check, fine)
    assert (passed.state, passed.advice) == ("passed", None)
    failing = outcome(stage, check, {**fine, **bad})
    assert failing.state == "failed" and failing.advice and failing.text


def test_what_figures_do_not_say_has_not_failed():
    for stage in STAGES:
        assert {one.state for one in checks_of("node", stage, {})} <= {"not known", "passed"}
    damaged = {"rows": "many", "train_loss": None, "steps": True}
    assert not any(failed(checks_of("node", stage, damaged)) for stage in STAGES)


def test_every_check_is_seen_failing_here_and_says_why_its_bound_is_there():
    asked = {(check.name, check.question) for stage in STAGES for check in stage.checks}
    assert {name for name, _ in asked} == {case[1] for case in CASES} | {"export_is_proven"}
    assert all(len(question) > 60 for _, question in asked)


def test_what_proves_a_result_wrong_is_an_error_and_comes_first():
    metrics = {**TRAINED, "loss_at_end": 9.0, "weights_looked_at": 5, "changed_weights_share": 0.0}
    found = failed(checks_of("trained", BY_NAME["sft"], metrics))
    assert [(one.check, one.severity) for one in found] == [
        ("weights_have_changed", "error"),
        ("loss_falls", "warning"),
    ]
