"""Several processes train what one trains: real ranks on this machine, which exchange through gloo.

One group of two ranks trains all cases and is killed in the last, and a second group goes on: to start one takes longer
than any of the trainings.
"""

import os
import shutil
from pathlib import Path

import pytest
from support.ranks_cases import STEPS, CasesConfig
from support.ranks_group import Group

pytestmark = pytest.mark.slow
ALIKE = ("sft", "sft-lora", "dpo", "dpo-lora", "nf4", "orpo", "live-lora", "relora", "qat", "prompts")
# Other methods, other bases, and what is beside the loss.
MORE = (
    "moe", "eaft", "kto", "reward", "simpo", "ipo", "distillation", "process", "live-follows", "int8", "packed",
    "disk", "grokfast",
)  # fmt: skip
HERE = Path(__file__).resolve().parent.parent.parent
# Largest difference of a weight after ten steps, of weights of about 0.2.
BOUND = 1e-6


def group(folder: Path, processes: int, cases: list[str], killed: list[int] | None = None) -> Group:
    """Processes that train these cases."""
    return Group(
        folder, processes, "support.ranks_cases:train_cases", CasesConfig, cases=cases, killed=killed or []
    )


def differ(found: dict, expected: dict) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([before, str(HERE)])
    yield root
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def alone(places):
    return group(places / "alone", 1, [*ALIKE, "unrounded"])


@pytest.fixture(scope="module")
def two(places):
    """Two ranks, of which the second dies in the last case at step 6, behind its checkpoint at 4."""
    return group(places / "two", 2, [*ALIKE, "dropout", "killed"], killed=[1, 6])


@pytest.fixture(scope="module")
def again(places, alone, two):
    """Two ranks that go on: from where the killed ones were, and from a checkpoint of one process."""
    shutil.copytree(two.folder / "checkpoints" / "killed", places / "again" / "checkpoints" / "killed")
    shutil.copytree(alone.kept("sft") / "checkpoint-4", places / "again" / "checkpoints" / "from_one"
                    / "shared" / "checkpoints" / "checkpoint-4")  # fmt: skip
    begun = places / "again" / "checkpoints" / "relora" / "shared" / "checkpoints"
    shutil.copytree(two.kept("relora"), begun)
    assert [one.name for one in begun.iterdir()] == ["checkpoint-5"]
    return group(places / "again", 2, ["killed", "from_one", "relora"])


@pytest.mark.parametrize("case", ALIKE)
def test_two_processes_train_what_one_trains(case, alone, two):
    check_alike(case, alone, two)


@pytest.mark.exhaustive
def test_so_do_other_methods_and_bases(places):
    alone, two = group(places / "more", 1, list(MORE)), group(places / "more_two", 2, list(MORE))
    for case in MORE:
        check_alike(case, alone, two)


def check_alike(case, alone, two):
    expected, found = alone.losses(case), two.losses(case)
    assert (two.said(f"{case}_processes"), two.said(f"{case}_exchanged_by")) == (2, "DistributedDataParallel")
    assert expected.keys() == found.keys() == set(range(1, STEPS + 1))
    assert abs(found[1] - expected[1]) < 1e-6
    assert max(abs(found[step] - expected[step]) for step in expected) < 1e-4
    assert differ(two.weights(case), alone.weights(case)) < BOUND
    assert expected[STEPS] < expected[1] - 0.01, "it has learnt something"


def test_held_out_rows_are_scored_alike(alone, two):
    expected, found = alone.said("sft_evals"), two.said("sft_evals")
    assert len(found) == len(expected) == 2
    assert max(abs(a - b) for a, b in zip(expected, found, strict=True)) < 1e-5


def test_the_first_rank_alone_writes_a_model(two):
    for case in ALIKE:
        assert list((two.folder / "checkpoints" / case / "rank_0" / "data").glob("*.safetensors"))
        assert not list((two.folder / "checkpoints" / case / "rank_1" / "data").iterdir())


def test_what_is_left_out_by_dropout_is_another_part_in_each_micro_batch(two):
    losses = two.losses("dropout")
    assert losses[STEPS] < losses[1] and losses != two.losses("sft-lora")


def test_a_killed_rank_is_named_and_may_be_tried_again(two):
    assert two.error is not None and two.error.crashed and not two.error.user
    assert str(two.error).startswith("rank 1 of 2 was ended by SIGKILL (often the machine ran out of memory)")


def test_killed_ranks_go_on_to_the_curve_of_an_uninterrupted_run(two, again):
    assert again.error is None
    # The Trainer keeps its log in the checkpoints; what is reported anew begins behind the checkpoint.
    expected = two.losses("sft")
    found = again.losses("killed")
    assert min(found) == 5
    assert found == {step: expected[step] for step in found}
    assert differ(again.weights("killed"), two.weights("sft")) == 0


def test_copies_start_their_adapter_anew_alike_and_go_on(two, again):
    stored = two.weights("relora")
    assert {min(factor.shape) for factor in stored.values()} == {3 * 4}, "of three cycles"
    assert min(again.losses("relora")) == 6
    assert again.losses("relora") == {step: two.losses("relora")[step] for step in range(6, STEPS + 1)}
    assert differ(again.weights("relora"), stored) == 0


def test_copies_compute_with_rounded_weights_from_the_step_on_that_is_asked_for(alone, two):
    (said,) = (
        event["message"] for event in two.events if event["type"] == "log" and "qat: 14" in event["message"]
    )
    assert "round their weights to int4, their inputs to int8" in said
    losses, unrounded = two.losses("qat"), alone.losses("unrounded")
    assert losses == alone.losses("qat")
    assert [step for step in losses if losses[step] == unrounded[step]] == [1, 2, 3]


def test_two_go_on_from_what_one_has_begun(alone, again):
    found, expected = again.losses("from_one"), alone.losses("sft")
    assert set(found) == set(range(5, STEPS + 1))
    assert max(abs(found[step] - expected[step]) for step in found) < 1e-4
    assert differ(again.weights("from_one"), alone.weights("sft")) < BOUND


def test_one_goes_on_from_what_two_have_begun(places, alone, two):
    shutil.copytree(two.folder / "checkpoints" / "killed", places / "one" / "checkpoints" / "killed")
    one = group(places / "one", 1, ["killed"])
    found, expected = one.losses("killed"), alone.losses("sft")
    assert set(found) == set(range(5, STEPS + 1))
    assert max(abs(found[step] - expected[step]) for step in found) < 1e-4
    assert differ(one.weights("killed"), alone.weights("sft")) < BOUND
