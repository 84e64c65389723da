"""What tools are named and what they give, whatever that is called and of whatever class."""

import pytest
from pydantic import ValidationError
from stages.training.online.test_environment_keys import config

from tunemill.stages.training.online.environment_calls import Begin, Called, Use
from tunemill.stages.training.online.environments import environments

MODULE = '''
from enum import Enum


class Result(str, Enum):
    OK = "fine"


def search(what: str, function: str):
    """Look.

    Args:
        what: it
        function: it
    """
    return Result.OK


class Searching:
    def reset(self, what=None, **row):
        return Result.OK

    def search(self, what: str):
        """Look.

        Args:
            what: it
        """
        return what
'''


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "looking.py"
    path.write_text(MODULE)
    return path


def test_arguments_have_any_name_and_results_any_class(module):
    called = Called(None, ["looking.search"], [str(module)], "trl.tools")
    with environments(called, 30.0) as homes:
        assert homes.ask({0: Begin("1", {"what": "a", "function": "b"})})[0].failure is None
        call = {"function": {"name": "search", "arguments": {"what": "a", "function": "b"}}}
        told = homes.ask({0: Use([call])})[0]
    assert told.failure is None
    assert [(one.content, type(one.content), one.failure) for one in told.value] == [("fine", str, None)]


def test_a_row_has_any_columns_and_a_reset_says_any_text(module):
    called = Called("looking.Searching", [], [str(module)], "trl.environment_factory")
    with environments(called, 30.0) as homes:
        told = homes.ask({0: Begin("1", {"what": "a", "function": "b"})})[0]
    assert (told.value, type(told.value), told.failure) == ("fine", str, None)


def test_tools_of_one_name_are_refused(module):
    files = [str(module)]
    called = Called("looking.Searching", ["looking.search"], files, "trl.environment_factory and trl.tools")
    with (
        environments(called, 30.0) as homes,
        pytest.raises(ValueError, match=r"search is a method of looking\.Searching"),
    ):
        homes.describe()
    with pytest.raises(ValidationError, match="two are named search"):
        config(
            reward_funcs=["looking.x"], reward_code=files, tools=["looking.search", "other.search"],
            tools_code=[*files, str(module.with_name("other.py"))],
        )  # fmt: skip
