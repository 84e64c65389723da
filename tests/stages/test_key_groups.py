"""Groups of keys that are joined in one config: none takes the place of what another one declares."""

import inspect

import pytest

from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.stages.declaration import StageConfig
from tunemill.stages.registry import STAGES

CONFIGS = sorted({GraphConfig, *(stage.config for stage in STAGES)}, key=lambda one: one.__name__)
KINDS = ("validators", "field_validators", "model_validators")


def groups_of(config):
    """The classes that a config is made of, the most special one first."""
    return [group for group in config.__mro__ if issubclass(group, StageConfig)]


def lost_keys(config):
    """Keys that a group declares anew, and that a config has as another one declares them."""
    for name, field in config.model_fields.items():
        declaring = next(group for group in groups_of(config) if name in inspect.get_annotations(group))
        if repr(declaring.model_fields[name]) != repr(field):
            yield name, declaring.__name__


def lost_validators(config):
    """Validators of a group that another group's of the same name stands in front of, though it does not extend it."""
    there = {}
    for group in reversed(groups_of(config)):
        found = group.__dict__.get("__pydantic_decorators__")
        names = {name for kind in KINDS for name in getattr(found, kind)} & vars(group).keys()
        for name in names:
            if name in there and not issubclass(group, there[name]):
                yield name, group.__name__, there[name].__name__
            there[name] = group


@pytest.mark.parametrize("config", CONFIGS, ids=lambda one: one.__name__)
def test_nothing_that_a_group_declares_is_lost(config):
    assert not list(lost_keys(config)) and not list(lost_validators(config))


def test_what_is_lost_is_found():
    from pydantic import Field, field_validator

    class Base(StageConfig):
        one: int = Field(1, description="a")

    class Left(Base):
        left: int = Field(1, description="b")

        @field_validator("left")
        @classmethod
        def _checked(cls, value):
            return value

    class Right(Base):
        one: int = Field(2, description="another")
        right: int = Field(1, description="c")

        @field_validator("right")
        @classmethod
        def _checked(cls, value):
            return value

    class Both(Left, Right):
        pass

    assert list(lost_keys(Both)) == [("one", "Right")]
    assert list(lost_validators(Both)) == [("_checked", "Left", "Right")]
