"""docs/scale.md: its YAML is read, its line is what `plan` says, and what it says is refused is refused."""

import re

import yaml
from support.pages import ROOT

from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.config.launcher_keys import GlobalBatch, LauncherSettings
from tunemill.stages.training.keys.several import UNPROVEN

PAGE = (ROOT / "docs" / "scale.md").read_text()


def test_its_yaml_and_its_line_are_those_of_the_code():
    block = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
    keys = yaml.safe_load(block)["pipeline"]
    assert {f"pipeline.{key}" for key in keys} <= GraphConfig.top_keys().keys()
    assert LauncherSettings(**keys["launcher"]).count == 8
    assert f"```\n{GlobalBatch(2, 4, 8)}\n```" in PAGE and keys["global_batch_size"] == 64


def test_what_is_refused_is_listed():
    other = {"lisa_n_layers": "LISA"}
    listed = " ".join(PAGE.partition("is refused by `check`")[2].partition("## ")[0].split())
    assert [key for key in UNPROVEN if other.get(key, f"`{key}`") not in listed] == []
