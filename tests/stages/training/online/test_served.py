"""Environments behind a server of OpenEnv: real servers, and nothing that is lost counts as a reward."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError
from support.environments import caller, environment_file, played
from support.modules import load_module
from support.openenv_servers import COUNTING, NAMED, server_of
from support.own_environment import ROOT, packages_with_openenv
from support.tiny_model import Heard, folder_bytes

from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.environment_calls import Begin, Called, Finish, Use
from tunemill.stages.training.online.environment_keys import INSTALL
from tunemill.stages.training.online.environment_state import restored
from tunemill.stages.training.online.environments import environments
from tunemill.stages.training.online.journal import Journal

KEY = "trl.environment_factory"
# What is told of calls that fail.
TOLD = (
    "{'error': '3 is too much'}",
    "{'error': 'the episode has ended'}",
    "{'error': 'Invalid message: it takes n (integer)'}",
)
SERVED = {"environment_code": None, "reward_funcs": [], "reward_code": None}


@pytest.fixture(scope="module")
def packages():
    return packages_with_openenv()


@pytest.fixture
def installed(packages, monkeypatch):
    """OpenEnv for the processes that are started here, and its version for the keys."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), packages]))
    monkeypatch.syspath_prepend(packages)
    return packages


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return caller(tmp_path_factory.mktemp("calls") / "base")


def config(**keys):
    return GrpoConfig(**{"micro_batch_size": 8, "learning_rate": 1e-3, **keys})


def whole_round(folder, number=0):
    journal = Journal(folder / "checkpoints" / "journal")
    return [one for path in journal.files(number) for one in journal.whole(number, int(path.stem[-3:]))]


def used(homes, place, name, **arguments):
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    (found,) = homes.ask({place: Use([call])})[place].value
    return found


def test_an_address_is_checked_and_openenv_must_be_there():
    one = config(environment_factory="http://localhost:8000")
    (fault,) = one.faults()
    assert fault.key == "environment_factory" and INSTALL in fault.reason
    assert one.reward_names == ["openenv"] and one.weights == [1.0]
    assert (
        "openenv" in one.used_libraries() and "openenv" not in config(reward_funcs=["./m"]).used_libraries()
    )
    for address, words in (
        ("http://me:secret@there:1", "holds a name or a password"),
        ("http://", "must be the address of a server"),
        ("http://there:port", "is no address"),
        ("https://there/?a=1", "must be the address of a server"),
    ):
        with pytest.raises(ValidationError, match=words):
            config(environment_factory=address)
    idle = {found.key for found in config(reward_funcs=["./m"], environment_reward="last").idle()}
    assert "environment_reward" in idle
    assert "environment_reward" not in {
        found.key for found in config(environment_factory="ws://there:1", environment_reward="last").idle()
    }


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_check_is_content_where_it_is_installed():
    code = (
        "from tunemill.stages.training.grpo.config import GrpoConfig as C;"
        "print(list(C(micro_batch_size=8, learning_rate=1e-3, environment_factory='http://there:1').faults()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_training_plays_on_the_server_and_learns_from_what_it_gives(base, tmp_path, packages):
    heard = Heard()
    with server_of(COUNTING, tmp_path / "server", packages) as url:
        played(tmp_path / "run", base, heard.report, max_steps=2, environment_factory=url, **SERVED)
    rollouts = whole_round(tmp_path / "run")
    assert max(one.episode.calls for one in rollouts) > 1, "several turns"
    earned = []
    for one in rollouts:
        start, kept = one.prompt_row % 5, restored(one.episode.state)
        assert one.episode.prompt[0]["content"] == f"go {start}", "what reset says stands behind the prompt"
        told = [said["content"] for said in one.episode.messages if said["role"] == "tool"]
        sums = [int(text) for text in told if text.isdigit()]
        # The server's own arithmetic: each sum is the one before, and what was given for it.
        for before, total, given in zip([start, *sums], sums, kept.rewards, strict=False):
            assert total == before + given
        for text in set(told) - {str(total) for total in sums}:
            assert text in TOLD
        assert one.episode.reward == kept.reward == sum(kept.rewards) and one.episode.failure is None
        earned.append(one.episode.reward)
    assert heard.steps("rewards/openenv")[1] == pytest.approx(sum(earned) / len(earned))
    assert len(set(earned)) > 2, "it is no constant"
    assert heard.steps("grad_norm")[1] > 0
    # Completions of a prompt play the same episode, each prompt another one, and the row's columns are told.
    resets = [line.split(" ", 2) for line in (tmp_path / "server" / "resets").read_text().splitlines()]
    assert {rest for _, _, rest in resets} == {"[]"}
    by_seed = {}
    for seed, start, _ in resets:
        by_seed.setdefault(seed, []).append(start)
    assert len(by_seed) == 4 and all(len(starts) == 4 for starts in by_seed.values())
    assert all(len(set(starts)) == 1 for starts in by_seed.values())


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_what_counts_and_what_a_model_is_told(tmp_path, packages):
    with server_of(COUNTING, tmp_path / "server", packages) as url:
        for counts, reward in (("sum", 3.0), ("last", 2.0)):
            with environments(Called(url, [], [], KEY, counts), 60) as homes:
                described = homes.describe()
                (tool,) = described.tools
                assert described.has_reward and tool["function"] == {
                    "name": "add", "description": "Add a number.",
                    "parameters": {
                        "type": "object", "properties": {"n": {"title": "N", "type": "integer"}}, "required": ["n"],
                    },
                }  # fmt: skip
                begun = homes.ask({place: Begin("s", {"prompt": "x", "start": 1}, 5) for place in range(2)})
                assert {one.value for one in begun.values()} == {" 1"}
                assert used(homes, 0, "add", n="1").content == "2"
                refused = used(homes, 0, "add", wrong=1)
                assert refused.content == TOLD[-1] and refused.failure.startswith(f"{KEY}: add raised")
                assert used(homes, 0, "add", n=2).content == "4"
                assert used(homes, 0, "add", n=1).content == "{'error': 'the episode has ended'}"
                assert used(homes, 0, "multiply", n=1).content == "{'error': 'Tool multiply not found.'}"
                told = homes.ask({0: Finish(), 1: Finish()})
                assert told[0].value.reward == reward and told[1].value.reward == 0.0
                kept = restored(told[0].value.state)
                assert (kept.rewards, kept.done, kept.observation["said"]) == ([1.0, 2.0], True, "4")
                homes.end_all()


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_tools_that_have_names_are_called_by_them(tmp_path, packages):
    with (
        server_of(NAMED, tmp_path / "server", packages) as url,
        environments(Called(url, [], [], KEY), 60) as homes,
    ):
        (tool,) = homes.describe().tools
        assert tool["function"]["name"] == "double" and tool["function"]["description"] == "Twice a number."
        assert tool["function"]["parameters"]["properties"]["n"]["type"] == "integer"
        assert homes.ask({0: Begin("s", {})})[0].value is None
        assert used(homes, 0, "double", n=4).content == "8"
        failed = used(homes, 0, "double", n="four")
        assert failed.content.startswith("{'error': ") and "four" in failed.content
        assert homes.ask({0: Finish()})[0].value.reward == 3.0
        homes.end_all()
        called = Called(url, ["counting.double"], [environment_file(tmp_path)], f"{KEY} and trl.tools")
        with (
            environments(called, 60) as others,
            pytest.raises(
                SettingError, match=r"double is a method of http.* and one of trl\.tools.*Rename one"
            ),
        ):
            others.describe()


CLASS = '''
from openenv.core.generic_client import GenericEnvClient


class Adding:
    def __init__(self):
        self.client = GenericEnvClient(base_url={url!r}).sync()

    def reset(self, start=0, **row):
        self.reward = 0.0
        return self.client.reset(start=start).observation["said"]

    def add(self, n: int) -> str:
        """
        Add a number.

        Args:
            n: how much
        """
        result = self.client.step({{"n": n}})
        self.reward = result.reward
        return result.observation["said"]

    def get_reward(self):
        return self.reward


def rewarded(environments, **kwargs):
    return [one.reward for one in environments]
'''


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_class_beside_the_yaml_asks_one_as_in_trls_examples(base, tmp_path, packages):
    heard = Heard()
    with server_of(COUNTING, tmp_path / "server", packages) as url:
        code = tmp_path / "adding.py"
        code.write_text(CLASS.format(url=url))
        played(
            tmp_path / "run", base, heard.report, max_steps=1, environment_factory="adding.Adding",
            environment_code=[str(code)], reward_funcs=["adding.rewarded"], reward_code=[str(code)],
        )  # fmt: skip
    assert heard.steps("rewards/Adding") == heard.steps("rewards/rewarded") != {1: 0.0}
    assert not any(one.episode.failure for one in whole_round(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_server_that_is_not_there_ends_the_run_before_it_trains(base, tmp_path):
    with pytest.raises(
        SettingError, match=r"http://127\.0\.0\.1:9: no server of OpenEnv answers there .*Start it"
    ):
        played(
            tmp_path / "run",
            base,
            Heard().report,
            max_steps=1,
            environment_factory="http://127.0.0.1:9",
            **SERVED,
        )


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_an_episode_that_is_lost_is_no_reward(base, tmp_path, packages):
    """At 98 the server ends. What was played is failed, not zero, and the next prompt cannot be reset."""
    heard, rows = Heard(), [{"start": 98}]
    with (
        server_of(COUNTING, tmp_path / "server", packages) as url,
        pytest.raises(UserError, match=r"(?s)rewards of 1 of 1 prompts failed.*the episode was lost"),
    ):
        played(
            tmp_path / "run", base, heard.report, rows, max_steps=1, micro_batch_size=4,
            gradient_accumulation_steps=1, environment_factory=url, **SERVED,
        )  # fmt: skip
    assert 1 not in heard.steps("rewards/openenv")
    failures = [one.episode.failure for one in whole_round(tmp_path / "run")]
    lost = [words for words in failures if words is not None]
    assert lost and all(f"{KEY}: {url}: the episode was lost: " in words for words in lost)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("installed")
def test_a_run_that_is_ended_goes_on_to_the_same_bytes(base, tmp_path, packages):
    watch, events = load_module(Path(__file__).with_name("killed_online.py")).Watch(), []
    keys = {"max_steps": 4, "completions_at_once": 4, "save_steps": 3, **SERVED}

    class EndedError(BaseException):
        """Ends a run in this process, as nothing catches it."""

    def on_event(name):
        events.append(name)
        if len(events) in (2, 9):
            raise EndedError

    with server_of(COUNTING, tmp_path / "server", packages) as url:
        keys["environment_factory"] = url
        whole, resumed = Heard(), Heard()
        expected = played(tmp_path / "whole", base, whole.report, **keys)
        watch.on_event = on_event
        for _ in range(2):
            with pytest.raises(EndedError):
                played(tmp_path / "ended", base, Heard().report, **keys)
        watch.on_event = None
        found = played(tmp_path / "ended", base, resumed.report, **keys)
    assert folder_bytes(found) == folder_bytes(expected)
    assert resumed.summary["strayed"] == 0
    assert 0 < resumed.summary["generated_tokens"] < whole.summary["generated_tokens"]


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_session_that_has_ended_is_not_gone_on_with_in_another(tmp_path, packages):
    folder = tmp_path / "server"
    with (
        server_of(COUNTING, folder, packages) as url,
        environments(Called(url, [], [], KEY), 60) as homes,
    ):
        assert homes.ask({0: Begin("s", {"start": 0}), 1: Begin("s", {"start": 98})})[0].value == " 0"
        used(homes, 1, "add", n=1)
        port = url.rpartition(":")[2]
        again = subprocess.Popen(
            [sys.executable, "server.py", port, "4"], cwd=folder, env={**os.environ, "PYTHONPATH": packages}
        )
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                try:
                    httpx.get(f"{url}/health")
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            assert "the episode was lost" in used(homes, 0, "add", n=1).content
            told = homes.ask({0: Finish()})[0]
            assert told.value is None and "the episode was lost" in told.failure
        finally:
            again.kill()
            again.wait()


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_server_without_room_says_what_to_do(tmp_path, packages):
    with (
        server_of(COUNTING, tmp_path / "server", packages, room=1) as url,
        environments(Called(url, [], [], KEY), 60) as homes,
    ):
        told = homes.ask({place: Begin("s", {"start": place}) for place in range(2)})
        failed = [one.failure for one in told.values() if one.failure is not None]
        (words,) = failed
        assert "max_concurrent_envs of at least pipeline.completions_at_once" in words
        homes.end_all()
        # One that ends makes room for the next, which waits for it.
        assert homes.ask({0: Begin("s", {"start": 4})})[0].value == " 4"
        threading.Timer(1, homes.end, [0]).start()
        assert homes.ask({1: Begin("s", {"start": 2})})[1].value == " 2"
        homes.end_all()
        told = homes.ask({2: Begin("s", {"start": 77})})[2]
        assert told.failure.endswith("resetting failed: nobody is here")
