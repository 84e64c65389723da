"""What `check` knows of environments: names, files, classes; no line of them runs."""

import importlib.util
import re

import pytest
from pydantic import ValidationError
from support.environments import environment_file

from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.grpo.config import GrpoConfig

SOURCE = """
import not_there_at_all

VALUE = 3


class Base:
    def reset(self, **row): ...


class Good(Base): ...


class Elsewhere(not_there_at_all.Environment): ...


class Bad:
    def step(self): ...


def made():
    return Good()


raise RuntimeError("a line has run")
"""


def config(kind=GrpoConfig, **keys):
    return kind(**{"micro_batch_size": 8, "learning_rate": 1e-3, **keys})


def faults(tmp_path, name, source=SOURCE):
    code = tmp_path / "own.py"
    code.write_text(source)
    given = {"reward_funcs": ["own.made"], "reward_code": [str(code)]}
    found = config(environment_factory=f"own.{name}", environment_code=[str(code)], **given).faults()
    return [fault.reason for fault in found if fault.key == "environment_factory"]


def test_classes_are_looked_at_and_do_not_run(tmp_path):
    file, installed = (
        tmp_path / "own.py",
        SOURCE.replace("import not_there_at_all", "import json as not_there_at_all"),
    )
    assert faults(tmp_path, "Good", installed) == faults(tmp_path, "made", installed) == []
    assert faults(tmp_path, "Elsewhere", installed) == []
    assert faults(tmp_path, "Bad", installed) == [
        f"{file}: Bad has no method reset, with which every completion begins"
    ]
    assert faults(tmp_path, "Missing", installed) == [f"{file} has no Missing"]
    assert faults(tmp_path, "VALUE", installed) == [
        f"{file}: VALUE is a value, and must be something that can be called"
    ]
    assert faults(tmp_path, "Good") == [f"{file}, line 2: imports not_there_at_all, which is not installed"]
    assert faults(tmp_path, "Good", "class Good(:") == [f"{file}, line 1: invalid syntax"]


def test_rewards_may_be_the_environments_own(tmp_path):
    code = [environment_file(tmp_path)]
    own = config(environment_factory="counting.Counter", environment_code=code)
    assert own.reward_names == ["Counter"] and own.weights == [1.0] and not list(own.faults())
    both = config(
        environment_factory="counting.Counter", environment_code=code, reward_funcs=["counting.total"],
        reward_code=code, reward_weights=[0.5],
    )  # fmt: skip
    assert both.reward_names == ["total", "Counter"] and both.weights == [0.5, 1.0]
    code = tmp_path / "own.py"
    code.write_text(SOURCE)
    with pytest.raises(ValidationError, match="nothing says how good a completion is"):
        config(environment_factory="own.Good", environment_code=[str(code)])


REWARDS = """
import abc, installed
import other
from other import Paid as Also, Nothing
from . import other as beside


class Paid:
    async def get_reward(self): ...


class Unpaid:
    pass


class Plain(Unpaid, abc.ABC): ...
class Below(Plain, Paid): ...
class Imported(other.Middle): ...
class Named(Also): ...
class Beside(beside.Paid): ...
class Nobody(Nothing): ...
class Elsewhere(installed.Environment): ...
class Set(Unpaid):
    get_reward = len
class Taken(Paid):
    get_reward = None
class Said(Paid):
    get_reward: int
class Itself(Unpaid):
    def reset(self):
        self.get_reward = len
@anybody
class Changed(Unpaid): ...
class Dynamic(Unpaid):
    def __getattr__(self, name): ...
def made():
    return Unpaid()
"""
OTHER = """
class Nothing: ...
class Paid:
    def get_reward(self): ...
class Middle(Paid): ...
"""


def test_a_reward_of_ones_own_is_that_of_the_named_class(tmp_path):
    files = [tmp_path / "own.py", tmp_path / "other.py"]
    for file, text in zip(files, (REWARDS, OTHER), strict=True):
        file.write_text(text)
    code = [str(file) for file in files]
    given = {"environment_code": code, "reward_funcs": ["own.made"], "reward_code": code}
    none = {"Unpaid", "Plain", "Nobody", "Taken"}
    own = {"Paid", "Below", "Imported", "Named", "Beside", "Set", "Said", "Itself"}
    # What these have is not theirs alone, and a class of the files has one.
    unknown = {"Elsewhere", "Changed", "Dynamic", "made"}
    for name in none | own | unknown:
        found = config(environment_factory=f"own.{name}", **given).reward_names
        assert found == (["made"] if name in none else ["made", "made_2" if name == "made" else name]), name
    # One that another file has.
    assert config(environment_factory="own.Also", **given).reward_names == ["made", "Also"]
    with pytest.raises(ValidationError, match="nothing says how good a completion is"):
        config(environment_factory="own.Unpaid", environment_code=code)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"environment_factory": "own.Good"}, r"there is no own.py beside the YAML"),
        ({"environment_factory": {"a": "own.Good"}}, "several environments by name are not there"),
        (
            {"environment_factory": "openenv.envs.Echo"},
            "name an environment of OpenEnv by the address of its server",
        ),
        ({"rollout_func": "verifiers.play"}, "tasksets of verifiers are rewards"),
        ({"tools": "trl.experimental.tool"}, "TRL is not there when a pipeline runs"),
        ({"tools": "own.made"}, r"trl.tools: own.made: there is no own.py beside the YAML"),
    ],
)
def test_what_is_not_there_is_refused(keys, words):
    with pytest.raises(ValidationError, match=words):
        config(reward_funcs=["a.b"], reward_code=["/a.py"], **keys)


def test_variables_of_the_template_decide_where_it_is_rendered_here(tmp_path):
    given = {"environment_factory": "counting.Counter", "environment_code": [environment_file(tmp_path)]}
    rendered = {"chat_template_kwargs", "rewards_chat_template_kwargs"}
    with_tools = config(**given, chat_template_kwargs={"a": 1}, rewards_chat_template_kwargs={"b": 2})
    assert with_tools.deciding() >= rendered and with_tools.template_variables == {"a": 1, "b": 2}
    assert not config(reward_funcs=["a.b"], reward_code=["/a.py"]).deciding() & rendered


def test_ebft_calls_nothing_and_turns_ask_for_tools(tmp_path):
    code = [environment_file(tmp_path)]
    for keys in (
        {"environment_factory": "counting.Counter", "environment_code": code},
        {"tools": ["counting.double"], "tools_code": code},
        {"rollout_func": "counting.total", "rollout_code": code},
    ):
        with pytest.raises(ValidationError, match="rl: ebft compares an answer with completions"):
            config(EbftConfig, **keys)
    idle = config(reward_funcs=["a.b"], reward_code=["/a.py"], max_tool_calling_iterations=2).idle()
    assert "max_tool_calling_iterations" in {one.key for one in idle}


CALLED = """
import installed
from functools import cache
from installed import wraps


class Base:
    def reset(self, **row): ...
    def told(self, n: int):
        '''A number.

        Args:
            n: which
        '''


class Good(Base):
    def __init__(self, size=3, *rest, **more): ...
    def told(self, n: int): ...
    def _own(self, n): ...
    @cache
    def cached(self, n): ...
    other = print
class Asked(Base):
    def __init__(self, difficulty, *, seed, size=3): ...
class Silent(Base):
    def add(self, n: int): ...
class Later(Silent):
    pass
class Above(Silent, installed.Environment):
    def __init__(self, difficulty): ...
@wraps
class Changed(Silent):
    def __init__(self, difficulty): ...


def made(): return Good()
def made_of(n): return Good()
async def awaited(): return Good()
def play(prompts, trainer): ...
def any_play(*given): ...
def short(completions): ...
async def late(prompts, trainer): ...
@wraps
def wrapped(completions): ...
def again(completions): ...
again = wraps(again)


def tool(n: int, *, of: str = "") -> str:
    '''
    A tool.

    Args:
        n: which
          of them
        of: what
    Returns:
        it
    '''
def silent(n: int): ...
def untyped(n, m: int):
    '''A tool.

    Args:
        n: which
        m: which
    '''
def unsaid(n: int, **more: int):
    '''A tool.

    Args:
        n (int): which
        more: others
    '''
def unbegun(n: int):
    '''A tool.

    n: which
    '''
def nothing():
    '''A tool.'''
"""


def said_of(tmp_path, key, name):
    code = tmp_path / "own.py"
    code.write_text(
        CALLED.replace("import installed", "import json as installed").replace(
            "from installed", "from functools"
        )
    )
    behind = {
        "environment_factory": "environment_code",
        "tools": "tools_code",
        "rollout_func": "rollout_code",
    }
    given = {"reward_funcs": ["own.made"], "reward_code": [str(code)], behind[key]: [str(code)]}
    found = config(**{key: f"own.{name}"}, **given).faults()
    return [fault.reason.removeprefix(f"{code}, line ") for fault in found if fault.key == key]


@pytest.mark.parametrize(
    ("key", "name", "words"),
    [
        *(("environment_factory", name, None) for name in ("Good", "Above", "Changed", "made", "awaited")),
        ("environment_factory", "Asked", r"\d+: Asked must be given difficulty, seed, and is called without anything"),
        ("environment_factory", "made_of", r"\d+: made_of must be given n, and is called without anything"),
        ("environment_factory", "Silent", r"\d+: add has no docstring. A completion is told of it by its docstring"),
        ("environment_factory", "Later", r"\d+: add has no docstring"),
        *(("rollout_func", name, None) for name in ("play", "any_play", "wrapped", "again")),
        (
            "rollout_func", "short",
            r"\d+: short\(completions\) cannot be called with \(prompts, trainer\). Take these",
        ),
        ("rollout_func", "late", r"\d+: late is async"),
        *(("tools", name, None) for name in ("tool", "nothing", "wrapped")),
        ("tools", "silent", r"\d+: silent has no docstring"),
        ("tools", "untyped", r"\d+: untyped: n has no type"),
        ("tools", "unsaid", r"\d+: unsaid: the docstring has no line for n"),
        ("tools", "unbegun", r"\d+: unbegun: the docstring has no line for n"),
    ],
)  # fmt: skip
def test_what_cannot_be_called_as_it_is(tmp_path, key, name, words):
    found = said_of(tmp_path, key, name)
    assert not found if words is None else re.match(words, found[0]), found


def test_what_is_said_of_tools_is_what_transformers_says(tmp_path):
    from transformers.utils.chat_template_utils import (
        DocstringParsingException,
        TypeHintParsingException,
        get_json_schema,
    )

    file = tmp_path / "described.py"
    file.write_text("def tool" + CALLED.partition("def tool")[2])
    spec = importlib.util.spec_from_file_location("described", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("tool", "nothing"):
        assert get_json_schema(getattr(module, name)) and not said_of(tmp_path, "tools", name)
    for name in ("silent", "untyped", "unsaid", "unbegun"):
        assert said_of(tmp_path, "tools", name)
        with pytest.raises((DocstringParsingException, TypeHintParsingException)):
            get_json_schema(getattr(module, name))
