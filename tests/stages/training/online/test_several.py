"""Several processes sample, judge and learn what one does: real ranks on this machine, which exchange through gloo."""

import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.online_ranks import STEPS, OnlineCasesConfig
from support.ranks_group import Group

from tunemill.stages.training.online.journal import Journal

pytestmark = pytest.mark.slow
ALIKE = ("full", "lora", "level", "ahead", "ebft", "masked", "played", "called", "called_ahead")
HERE = Path(__file__).resolve().parents[4]
# Largest difference of a weight, of weights of about 0.2.
BOUND = 1e-6


def group(folder: Path, processes: int, *cases: str, killed: tuple[int, ...] = ()) -> Group:
    """Processes that train these cases."""
    body = "support.online_ranks:train_cases"
    return Group(folder, processes, body, OnlineCasesConfig, cases=list(cases), killed=list(killed))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("several")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([before, str(HERE), str(HERE / "tests")])
    yield root
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def alone(places):
    return group(places / "alone", 1, *ALIKE, "whole")


@pytest.fixture(scope="module")
def two(places):
    """Two processes, of which the second dies in the last case at step 5, behind its checkpoint at 3."""
    return group(places / "two", 2, *ALIKE, "killed", killed=(1, 5))


def differ(found: dict, expected: dict) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


def sampled(launch: Group, case: str) -> list[tuple]:
    """What was sampled, in the order of rounds and groups."""
    journal = Journal(launch.kept(case) / "journal")
    rollouts = [
        one for number in range(3) for first in (0, 2) for one in journal.rollouts(number, first) or []
    ]
    return [(one.round, one.group, one.prompt_row, one.completion.ids) for one in rollouts]


@pytest.mark.parametrize("case", ALIKE)
def test_two_processes_learn_what_one_learns(case, alone, two):
    expected, found = alone.losses(case), two.losses(case)
    assert two.said(f"{case}_processes") == 2
    assert two.said(f"{case}_exchanged_by") == "DistributedDataParallel"
    assert expected.keys() == found.keys() == set(range(1, STEPS + 1))
    assert max(abs(found[step] - expected[step]) for step in expected) < 1e-5
    assert differ(two.weights(case), alone.weights(case)) < BOUND
    assert sampled(two, case) == sampled(alone, case) != []
    for name in ("rounds", "generated_tokens", "kept_rollouts"):
        assert two.said(f"{case}_{name}") == alone.said(f"{case}_{name}")


@pytest.mark.parametrize("case", ["full", "lora", "level", "ahead", "ebft"])
def test_it_has_learnt_something(case, alone):
    base = load_file(alone.folder / "checkpoints" / case / "given" / "base" / "model.safetensors")
    found = alone.weights(case)
    if case == "lora":
        assert all(bool(weight.any()) for name, weight in found.items() if "lora_B" in name)
    else:
        assert differ(found, {name: base[name] for name in found}) > 1e-4


@pytest.mark.parametrize("case", ["called", "called_ahead"])
def test_both_processes_have_environments(case, two):
    journal = Journal(two.kept(case) / "journal")
    # A round has two parts, each of which another process has sampled.
    parts = [journal.whole(1, first) for first in (0, 2)]
    assert all(max(one.episode.calls for one in part) > 1 for part in parts)
    assert all(one.episode.state is not None for part in parts for one in part)
    assert all(one.episode.calls == 0 or not all(one.mask) for part in parts for one in part)


def test_the_first_process_scores_held_out_prompts_for_all(alone, two):
    for name in ("first_eval_reward", "last_eval_reward", "last_eval_completion_length"):
        assert two.said(f"lora_{name}") == pytest.approx(alone.said(f"lora_{name}"), abs=1e-6)


def test_each_process_samples_a_part(two):
    files = [two.folder / "checkpoints" / "lora" / f"rank_{rank}" / "data" for rank in (0, 1)]
    assert list(files[0].glob("*.safetensors")) and not list(files[1].iterdir())
    # The figures of speed are those of both, and no part was sampled twice.
    (said,) = [
        one["message"] for one in two.events if one["type"] == "log" and one["message"].startswith("lora:")
    ]
    assert "wait while" not in said


def test_a_killed_process_is_named_and_the_training_goes_on_to_the_same_weights(places, alone, two):
    assert two.error is not None and str(two.error).startswith("rank 1 of 2 was ended by SIGKILL")
    shutil.copytree(two.folder / "checkpoints" / "killed", places / "again" / "checkpoints" / "killed")
    shutil.copytree(two.folder / "checkpoints" / "killed", places / "one" / "checkpoints" / "killed")
    again, one = group(places / "again", 2, "killed"), group(places / "one", 1, "killed")
    for launch in (again, one):
        assert launch.error is None
        assert min(launch.losses("killed")) == 4
        assert differ(launch.weights("killed"), alone.weights("whole")) < BOUND
        assert sampled(launch, "killed") == sampled(alone, "whole")
        assert launch.said("killed_strayed") == 0
        assert launch.said("killed_generated_tokens") < alone.said("whole_generated_tokens") / 2


def test_a_mistake_of_rewards_ends_all_with_its_own_words(places):
    found = group(places / "mistaken", 2, "wrong")
    assert found.error is not None and found.error.user
    assert "letters.wrong" in str(found.error)
