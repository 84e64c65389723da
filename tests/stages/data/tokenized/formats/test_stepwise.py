"""`type: stepwise_supervised`: judged steps, and the settings that Axolotl ignores."""

import json
from pathlib import Path

import pytest
from support.formats import FormatBench

from tunemill.stages.data.conversations.example import BadRowError

GOLDEN = Path(__file__).parents[4] / "golden" / "stepwise"
ROW = {"prompt": "Which is larger?", "completions": ["Look at it.", "It is 2."], "labels": [True, False]}


@pytest.fixture(scope="module", params=["sp", "gemma", "llama3", "chatml"])
def bench(request):
    return FormatBench(request.param)


def stepwise(bench, row, **settings):
    (sample,) = bench.samples([row], type="stepwise_supervised", **settings)
    return sample


def classes(sample):
    """Where in the row a class stands, and which."""
    return [(place, label) for place, label in enumerate(sample.labels) if label != -100]


def by_hand(bench, separator):
    """Token ids of ROW, and where its steps end."""
    bos = bench.tokenizer.bos_token_id
    ids = [*([] if bos is None else [bos]), *bench.ids(ROW["prompt"])]
    ends = []
    for step in ROW["completions"]:
        ids += [*bench.ids(step), *bench.ids(separator)]
        ends.append(len(ids) - 1)
    return ids, ends


@pytest.mark.parametrize("name", ["stepwise", "stepwise_last", "stepwise_seq"])
def test_golden(name):
    """With the default settings, whatever the case's own were: Axolotl did not read those."""
    case = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    bench = FormatBench(case["tokenizer_folder"])
    chosen = bench.format(type="stepwise_supervised")
    assert chosen.cuts and not chosen.splits
    limit = case["sequence_len"]
    for sample, expected in zip(
        bench.samples(case["rows"], type="stepwise_supervised"), case["expected"], strict=True
    ):
        assert sample.ids[:limit] == expected["input_ids"]
        inside = [[place, label] for place, label in classes(sample) if place < limit]
        assert inside == expected["labels"]


@pytest.mark.parametrize("separator", ["\n", "\n\n", " END "])
def test_the_separator_carries_the_class(bench, separator):
    ids, (first, last) = by_hand(bench, separator)
    sample = stepwise(bench, ROW, step_separator=separator)
    assert sample.ids == ids
    assert classes(sample) == [(first, 1), (last, 0)]


def test_only_the_last_step(bench):
    ids, ends = by_hand(bench, "\n")
    sample = stepwise(bench, ROW, train_on_last_step_only=True)
    assert (sample.ids, classes(sample)) == (ids, [(ends[-1], 0)])


def test_the_steps_are_cut_off_and_the_prompt_is_not(bench):
    ids, (first, last) = by_hand(bench, "\n")
    prompt = len(ids) - sum(len(bench.ids(step)) + len(bench.ids("\n")) for step in ROW["completions"])
    sample = stepwise(bench, ROW, max_completion_length=first - prompt + 2)
    assert sample.ids == ids[: first + 2]
    assert classes(sample) == [(first, 1)]
    assert [run.end for run in sample.runs][-1] == len(sample.ids)
    assert stepwise(bench, ROW, max_completion_length=last - prompt + 1).ids == ids


def test_without_a_separator_the_step_carries_the_class(bench):
    sample = stepwise(bench, ROW, step_separator="")
    assert [label for _, label in classes(sample)] == [1, 0]
    assert classes(sample)[-1][0] == len(sample.ids) - 1


def test_an_empty_step_and_classes_beyond_two(bench):
    row = {"prompt": "", "completions": ["", "Yes."], "labels": [2, 0]}
    assert [label for _, label in classes(stepwise(bench, row))] == [2, 0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": [True]}, "2 completions and 1 labels"),
        ({"labels": [True, "yes"]}, "label 2 must be true, false or the number of a class, not 'yes'"),
        ({"labels": [True, -1]}, "label 2"),
        ({"labels": 1}, "'labels' must be a list"),
        ({"completions": [], "labels": []}, "'completions' must be a list"),
        ({"completions": ["a", 1]}, "'completions' must be a list of texts"),
        ({"prompt": None}, "no field 'prompt'"),
    ],
)
def test_bad_rows(change, reason):
    with pytest.raises(BadRowError, match=reason):
        stepwise(FormatBench("chatml"), {**ROW, **change})
