"""Which trackers a YAML switches on, as Axolotl reads its keys, and what of them is refused or asks for nothing."""

import pytest

from tunemill.pipelines.config.tracker_config import TrackerConfig
from tunemill.resources.trackers.table import TRACKERS


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        ({}, ()),
        ({"use_wandb": True}, ("wandb",)),
        ({"wandb_project": "p"}, ("wandb",)),
        ({"wandb_project": "p", "use_wandb": False}, ()),
        ({"wandb_project": "p", "wandb_mode": "disabled"}, ()),
        ({"wandb_entity": "me", "wandb_watch": "", "wandb_log_model": ""}, ()),
        ({"use_tensorboard": True}, ("tensorboard",)),
        ({"mlflow_experiment_name": "e"}, ("mlflow",)),
        ({"mlflow_tracking_uri": "http://x"}, ()),
        ({"use_trackio": True, "use_comet": True, "use_swanlab": True, "use_otel_metrics": True},
         ("trackio", "swanlab", "comet", "otel")),
    ],
)  # fmt: skip
def test_trackers_are_switched_on_as_in_axolotl(keys, asked):
    assert TrackerConfig(**keys).asked == asked


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"wandb_watch": "gradients"}, "does not see the model"),
        ({"wandb_log_model": "checkpoint"}, "Write end"),
        ({"swanlab_log_model": True}, "takes no models"),
        ({"otel_metrics_port": 70000}, "65535"),
        ({"wandb_mode": "ofline"}, "offline"),
    ],
)
def test_what_no_tracker_can_do_is_refused(keys, words):
    with pytest.raises(ValueError, match=words):
        TrackerConfig(**keys)


def test_keys_of_a_tracker_that_is_off_ask_for_nothing():
    config = TrackerConfig(
        wandb_entity="me",
        wandb_mode="offline",
        use_swanlab=True,
        swanlab_log_completions=True,
        swanlab_web_host="x",
    )
    assert {item.key for item in config.idle()} == {
        "wandb_entity", "wandb_mode", "swanlab_log_completions",
    }  # fmt: skip
    assert not list(TrackerConfig(wandb_mode="disabled").idle())


def test_every_key_belongs_to_a_tracker_and_each_gets_its_own():
    keys = dict.fromkeys(TrackerConfig.model_fields)
    for name in TRACKERS:
        for key in TrackerConfig().model_copy(update=dict.fromkeys(keys, "x")).settings_of(name):
            keys[key] = name
    assert {key for key, name in keys.items() if name is None} == {
        "use_wandb", "use_mlflow", "use_trackio", "use_swanlab", "use_comet", "use_otel_metrics",
    }  # fmt: skip


def test_a_secret_of_one_tracker_is_not_told_another():
    config = TrackerConfig(use_comet=True, comet_api_key="secret", use_wandb=True)
    assert "comet_api_key" not in config.settings_of("wandb")


def test_what_is_not_installed_names_its_extra():
    missing = dict(TrackerConfig(use_comet=True, comet_project_name="p", use_tensorboard=True).missing())
    assert "use_tensorboard" not in missing
    if not TRACKERS["comet"].is_installed:
        assert "pip install 'tunemill[comet]'" in missing["use_comet"]
