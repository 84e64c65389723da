"""Owners and tags: what is taken Dagster takes, what is refused it refuses, in `check` and with the place."""

import random

import dagster as dg
import pytest
from support.project import make_project

from tunemill.pipelines.config.owner_keys import fault_of_owner, fault_of_tag
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline

PARTS = ["a", "Z9", "@", ".", "org", "team:", " ", "é", "-", "_", "/", "x" * 63, ""]


def dagster_takes(**said):
    try:
        dg.AssetSpec("a", **said)
    except (dg.DagsterInvalidDefinitionError, dg.DagsterError):
        return False
    return True


def test_what_is_taken_is_what_dagster_takes():
    pick = random.Random(7)
    texts = sorted({"".join(pick.choices(PARTS, k=pick.randint(1, 5))) for _ in range(2000)} | {"a@b.org"})
    owners = {text: fault_of_owner(text) is None for text in texts}
    names = {text: fault_of_tag(text, "a") is None for text in texts}
    values = {text: fault_of_tag("a", text) is None for text in texts}
    assert owners == {text: dagster_takes(owners=[text]) for text in texts} and len(set(owners.values())) == 2
    assert (
        names == {text: dagster_takes(tags={text: "a"}) for text in texts} and len(set(names.values())) == 2
    )
    assert values == {text: dagster_takes(tags={"a": text}) for text in texts}
    assert len(set(values.values())) == 2


def test_what_is_refused_says_what_is_wrong(tmp_path):
    project = make_project(tmp_path / "project")
    for keys, said in (
        ({"owners": ["ada"]}, "'ada' is no owner"),
        ({"owners": ["team:a", "team:a"]}, "an owner is named twice"),
        ({"tags": {"cost centre": "1"}}, "'cost centre' is no name of a tag"),
        ({"tags": {"cost": 12}}, "Write it in quotes"),
        ({"tags": {"cost": "a lot"}}, "'a lot' is no tag"),
        ({"tags": {"dagster/kind/x": ""}}, "Dagster's own"),
    ):
        project.edit(pipeline=keys)
        with pytest.raises(ConfigError, match=said):
            load_pipeline(project.yaml)
