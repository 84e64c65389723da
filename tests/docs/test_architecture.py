"""docs/architecture.md names what is there: every room, every rule with the test that holds it."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import test_house

from tunemill.stages.training.method import LossParts, Method, OwnLoss

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMED = set(re.findall(r"`([^`\n]+)`", PAGE))


@pytest.mark.parametrize("name", sorted(name for name in NAMED if re.fullmatch(r"\w+/[\w/.]*", name)))
def test_every_file_and_folder_that_is_named_is_there(name):
    assert (ROOT / name).is_dir() if name.endswith("/") else (ROOT / name).is_file()


def test_every_room_is_named():
    rooms = {f"stages/{room}/" for room in test_house.SHARED_ROOMS}
    rooms |= {f"pipelines/{room}/" for room in test_house.ROOMS}
    rooms |= {f"{folder}/" for folder in test_house.FOLDERS} | {"kernels/functions/", "kernels/in_models/"}
    assert rooms <= NAMED


def test_the_rooms_of_the_pipeline_stand_in_the_order_of_their_imports():
    assert re.findall(r"^\d\. `pipelines/(\w+)/`", PAGE, re.M) == list(test_house.ROOMS)


def test_each_of_the_four_rules_names_its_test():
    rules = re.findall(r"^\| .+ \| `(test_\w+)` \|$", PAGE, re.M)
    assert len(rules) == 4 and all(callable(getattr(test_house, rule)) for rule in rules)


def test_what_a_method_is_stands_there_whole():
    assert set(re.findall(r"^- `(\w+)`:", PAGE, re.M)) >= {field.name for field in fields(Method)}
    assert {field.name for field in fields(OwnLoss)} | {OwnLoss.__name__, LossParts.__name__} <= NAMED
