"""Plugins of one's own in `check` and `plan`: their keys and faults are read from the source, and none of it runs."""

import re
from pathlib import Path
from typing import Any

import pytest
from support.configs import ORPO, SFT, load, problems
from support.plugin_files import plugged
from support.project import make_project

from tunemill.pipelines.graph.check_files import check_files
from tunemill.stages.data.conversations.user_modules import load_function

NAMED = {**SFT, "plugins": ["own_plugin.Freezes"]}


def trained(folder: Path, config: dict[str, Any]) -> Any:
    """The config of the training."""
    return next(node.config for node in load(folder, config).nodes if node.name == "trained")


def faults(folder: Path, config: dict[str, Any]) -> list[str]:
    """What `check` says of plugins, with the files looked at."""
    load(folder, config)
    (checked,) = check_files([folder / "x.yml"], [])
    return [problem.message for problem in checked.problems if problem.path.startswith("plugins")]


@pytest.mark.parametrize("kind", [SFT, ORPO])
def test_declared_keys_are_keys_of_the_training(tmp_path: Path, kind: dict[str, Any]) -> None:
    plugged(tmp_path)
    config = {**kind, "plugins": ["own_plugin.Freezes"], "frozen_layer": 1, "shrink": 1.0}
    found = trained(tmp_path, config)
    assert found.plugin_settings == {"frozen_layer": 1}, "without what is the default anyway"
    assert [Path(file).name for file in found.plugin_code] == ["own_plugin.py", "helpers.py"]
    assert (
        found.semantic()["plugin_settings"] == {"frozen_layer": 1} and "plugin_code" not in found.semantic()
    )


@pytest.mark.parametrize(
    "name",
    [
        "own_plugin.Freezes",
        "own_plugin.py:Freezes",
        "inner.own_plugin.Freezes",
        "inner/own_plugin.py:Freezes",
    ],
)
def test_ways_to_name_a_class(tmp_path: Path, name: str) -> None:
    inner = tmp_path / "inner" if name.startswith("inner") else tmp_path
    plugged(inner, text="class Freezes:\n    def post_train(self, cfg, model):\n        pass\n")
    assert trained(tmp_path, {**SFT, "plugins": [name]}).plugin_code == [str(inner / "own_plugin.py")]


def test_what_is_wrong_with_a_declared_key_is_said_at_it(tmp_path: Path) -> None:
    plugged(tmp_path)
    found = problems(tmp_path, {**NAMED, "frozen_layer": -1, "shrink": "much", "shrnk": 1})
    assert {(problem.path, problem.kind) for problem in found} == {
        ("frozen_layer", "value"), ("shrink", "value"), ("shrnk", "unknown"),
    }  # fmt: skip
    assert {problem.suggestion for problem in found if problem.path == "shrnk"} == {"shrink"}
    (problem,) = problems(tmp_path, {**SFT, "frozen_layer": 1})
    assert problem.kind == "unknown", "without the plugin nobody declares it"


ARGS = """from pydantic import BaseModel, Field
from typing import Literal, Optional
import there
class Root(BaseModel):
    a: {kind} = {default}
class Args(Root):
    b: int = 1
class One:
    def get_input_args(self):
        {declare}
    def post_train(self, cfg, model):
        pass
"""


@pytest.mark.parametrize(
    ("kind", "default", "good", "bad", "where"),
    [
        ("int", "3", 4, "x", "a"),
        ("Optional[float]", "None", 0.5, "x", "a"),
        ('Literal["u", "v"]', '"u"', "v", "w", "a"),
        ("Literal['u'] | bool", "Field('u', description='x')", True, "w", "a"),
        ("list[int]", "Field(default_factory=list)", [1], ["x"], "a[0]"),
        ("dict[str, int]", "Field(there.some)", {"x": 1}, {"x": "y"}, "a.x"),
        ("'int | None'", "None", 2, "x", "a"),
        ("there.Kind", "there.some", "anything", None, "a"),
        ("int", "Field(ge=3)", 3, 2, "a"),
        ("float | None", "Field(None, gt=0)", 0.5, -1, "a"),
        ("PositiveInt", "Field(9, lt=5)", 3, 7, "a"),
        ("list[str]", "Field(['u'], min_length=1)", ["x"], [], "a"),
        # What goes with no value of the type, or is no constraint at all, is the model's own matter.
        ("there.Kind", "Field(1, gt=0)", "x", None, "a"),
        ("float | str", "Field(1, gt=0)", "x", ["x"], "a"),
        ("str", "Field('u', gt=0)", "x", 1, "a"),
        ("str", "Field('u', pattern='[')", "x", None, "a"),
        ("int", "Field(4, multiple_of=0)", 3, None, "a"),
        ("Union", "3", 4, None, "a"),
        ("Literal[()]", "None", 4, None, "a"),
        ("dict", "{[]: 1}", {"x": 1}, 3, "a"),
    ],
)
def test_types_and_defaults_are_read_as_they_are_written(
    tmp_path: Path, kind: str, default: str, good: Any, bad: Any, where: str
) -> None:
    (tmp_path / "own_plugin.py").write_text(ARGS.format(kind=kind, default=default, declare="return Args"))
    config = {**SFT, "plugins": ["own_plugin.One"], "b": 2}
    assert trained(tmp_path, {**config, "a": good}).plugin_settings == {"a": good, "b": 2}
    if bad is not None:
        assert [problem.path for problem in problems(tmp_path, {**config, "a": bad})] == [where]


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        ("return make()", "must end in one return"),
        ('return "own_plugin.Nothing"', "names own_plugin.Nothing, and there is no such class"),
        ("return Stranger", "must end in one return"),
        ('return "own_plugin.Foreign"', "inherits from there.Model"),
        ('return "own_plugin.Taken"', "declares learning_rate, which is a key already"),
    ],
)
def test_keys_that_cannot_be_told_are_refused(tmp_path: Path, declare: str, said: str) -> None:
    more = "class Foreign(there.Model):\n    pass\nclass Taken(BaseModel):\n    learning_rate: float = 1\n"
    (tmp_path / "own_plugin.py").write_text(ARGS.format(kind="int", default="1", declare=declare) + more)
    found = problems(tmp_path, {**SFT, "plugins": ["own_plugin.One"]})
    assert [problem.path for problem in found] == ["plugins"] and said in found[0].message


def test_two_plugins_declare_no_key_together(tmp_path: Path) -> None:
    text = ARGS.format(kind="int", default="1", declare="return Args")
    (tmp_path / "own_plugin.py").write_text(text + text.partition("class One")[2].join(["class Two", ""]))
    found = problems(tmp_path, {**SFT, "plugins": ["own_plugin.One", "own_plugin.Two"]})
    assert "own_plugin.Two: declares" in found[0].message and "so does own_plugin.One" in found[0].message


def with_hook(hook: str) -> str:
    return f"class One:\n    def {hook}:\n        pass\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no class One"),
        ("class One(", "own_plugin.py, line 1"),
        ("class One:\n    pass", "without any hook; there are get_input_args"),
        (with_hook("load_datasets(self, cfg)"), r"load_datasets \(.*line 2\): rows are prepared before"),
        (
            with_hook("register(self, cfg)").replace("One", "Zero") + "class One(Zero):\n    pass",
            "sees the whole",
        ),
        (
            "import nowhere_here\n" + with_hook("post_train(self, c, m)"),
            "line 1: imports nowhere_here, which is not",
        ),
        (
            with_hook("post_model_load(self, model)"),
            r"post_model_load\(self, model\) cannot be called with \(self, cfg, model\)\. Take these \(.*line 2\)",
        ),
        (with_hook("post_train(self, cfg, model, *, more)"), "cannot be called with"),
        (with_hook("create_optimizer(self, c, t)"), "create_optimizer makes what optimizer asks for"),
        (
            with_hook("create_lr_scheduler(self, c, t, o, n)"),
            "create_lr_scheduler makes what lr_scheduler asks",
        ),
    ],
)
def test_check_reads_what_a_plugin_is(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own_plugin.py").write_text(text)
    (message,) = faults(
        tmp_path, {**SFT, "plugins": ["own_plugin.One"], "optimizer": "sgd", "lr_scheduler": "linear"}
    )
    assert re.search(said, message), message


@pytest.mark.parametrize("name", ["my_plugin.MyPlugin", "deep.my_plugin.MyPlugin", "my_plugin.py:MyPlugin"])
def test_a_plugin_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    (problem,) = problems(tmp_path, {**SFT, "plugins": [name]})
    assert problem.kind == "conflict" and "my_plugin.py beside the YAML" in problem.message


def test_no_line_of_it_runs_in_check(tmp_path: Path) -> None:
    (tmp_path / "own_plugin.py").write_text(
        "raise SystemExit('it ran')\nclass One:\n    def post_train(self, c, m):\n        pass\n"
    )
    assert faults(tmp_path, {**SFT, "plugins": ["own_plugin.One"]}) == []
    with pytest.raises(SystemExit, match="it ran"):
        load_function("type", "own_plugin.load", [str(tmp_path / "own_plugin.py")])


@pytest.mark.slow
def test_a_changed_plugin_trains_again_and_is_named(tmp_path: Path) -> None:
    project = make_project(tmp_path, adapter=None, quantization=None, test_datasets=None, max_steps=1)
    files = plugged(tmp_path)["plugin_code"]
    project.edit(plugins=["own_plugin.Freezes"], frozen_layer=0)
    project.run()
    assert project.plan()["trained"].state == "cached"
    assert project.plan("frozen_layer=1")["trained"].reasons == ("frozen_layer 0 -> 1",)
    Path(files[1]).write_text(Path(files[1]).read_text() + "MORE = 1\n")
    found = project.plan()
    assert found["trained"].reasons == (f"plugin_code: the contents of {files[1]} changed",)
    assert {name for name, item in found.items() if item.state == "run"} == {"trained"}


@pytest.mark.parametrize(
    "parameters",
    ["self, *given", "self, c, /, m, more=1", "self, c, m, *, more=1, **others", "self, one, one"],
)
def test_check_says_nothing_of_a_hook_that_may_do(tmp_path: Path, parameters: str) -> None:
    """Of two parameters of one name Python says something, once it runs."""
    text = (
        with_hook(f"post_train({parameters})")
        + "    @staticmethod\n    def pre_lora_load(c, m):\n        pass\n"
    )
    (tmp_path / "own_plugin.py").write_text(text)
    assert faults(tmp_path, {**SFT, "plugins": ["own_plugin.One"]}) == []
