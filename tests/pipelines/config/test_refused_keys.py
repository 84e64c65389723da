"""Keys of Axolotl that nothing here could honour: each is refused with what to write in its place."""

import re

import pytest
from support.configs import SFT, problems

from tunemill.pipelines.config.refused_keys import OF_NEMO_GYM, REFUSED
from tunemill.pipelines.config.schema import axolotl_keys


def test_every_key_of_nemo_gym_is_known():
    named = {match[0] for key in axolotl_keys() if (match := re.match(r"nemo_gym_\w+", key))}
    assert {f"nemo_gym_{name}" for name in OF_NEMO_GYM} == named <= REFUSED.keys()


@pytest.mark.parametrize(
    ("key", "value"),
    [("nemo_gym_enabled", True), ("nemo_gym_datasets", [{"path": "a.jsonl"}]), ("nemo_gym_dir", "~/Gym")],
)
def test_keys_of_nemo_gym_say_what_to_write(tmp_path, key, value):
    (found,) = problems(tmp_path, {**SFT, key: value})
    assert found.path == key and found.kind == "unsupported"
    assert "Ask them by a class beside the YAML (trl.environment_factory)" in found.message
