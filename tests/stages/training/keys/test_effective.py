"""Every key of training takes effect: trainings that differ in nothing but one key differ where that key acts.

`tests/mutations/cut_wiring.py` proves the table: it cuts each key's wiring, and the key's cases must fail.
"""

import gc
from collections.abc import Iterator

import pytest
from stages.training.keys.cases import CASES
from stages.training.keys.trainings import Trainings

from stages.training.keys import observations as see
from tunemill.stages.registry import METHODS

# The groups of keys that several methods read.
SHARED = ("tunemill.stages.training.keys.", "tunemill.stages.training.online.")


def case_id(number: int) -> str:
    """The key, which pytest -k and the cutter look for; method, what is looked at, and a number."""
    field, case = CASES[number]
    return f"{field}-{case.method}-{case.observe.__name__}-{number}"


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    # Each training collects garbage twice, most of its time, unless the libraries are left out of that.
    gc.collect()
    gc.freeze()
    yield Trainings(tmp_path_factory.mktemp("trainings"))
    gc.unfreeze()


def declared() -> set[tuple[str, str]]:
    """(method, key) of every key of training; of a key in a group, which methods share, the method is any."""
    found = set()
    for method, stage in METHODS.items():
        for field in stage.config.model_fields:
            owner = next(
                kind for kind in stage.config.__mro__ if field in vars(kind).get("__annotations__", {})
            )
            shared = owner.__module__.startswith(SHARED)
            found.add(("any", field) if shared else (method, field))
    return found


def test_every_key_of_every_method_has_a_case() -> None:
    wanted = declared()
    found = {(case.method, field) for field, case in CASES} | {("any", field) for field, _ in CASES}
    missing = sorted(wanted - found)
    assert not missing, f"{missing}: say in cases.py where these keys take effect"
    unknown = sorted({field for field, _ in CASES} - {field for _, field in wanted})
    assert not unknown, f"{unknown}: cases of no key"


def numbers() -> Iterator[object]:
    """Of each method's key the first place where it acts; what trains by SFT is slow, other places are exhaustive."""
    seen = set()
    for number, (field, case) in enumerate(CASES):
        trains = case.method == "sft" and case.observe not in see.OF_CONFIGS
        marks = [pytest.mark.slow] * trains + [pytest.mark.exhaustive] * ((case.method, field) in seen)
        seen.add((case.method, field))
        yield pytest.param(number, marks=marks, id=case_id(number))


@pytest.mark.parametrize("number", numbers())
def test_a_key_takes_effect(trainings: Trainings, number: int) -> None:
    field, case = CASES[number]

    def observed(value: object) -> object:
        settings = {**case.beside, field: value}
        if case.observe in see.OF_CONFIGS:
            return case.observe(trainings.read(case.method, settings))
        seen = trainings.run(case.method, settings, base=case.base, on_gpu=case.on_gpu)
        return case.observe(seen)

    first, *others = (observed(value) for value in case.values)
    assert observed(case.values[0]) == first, "two trainings with the same settings differ"
    found = [first, *others]
    for place, one in enumerate(found):
        assert one not in found[:place], f"{field}: {case.values[place]!r} looks like an earlier value: {one}"
