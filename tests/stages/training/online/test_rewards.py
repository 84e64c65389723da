"""Rewards: real functions in real processes, what fails, hangs or dies, and reward models."""

import json
import subprocess
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_model import make_model
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForSequenceClassification

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.online.reward_asking import Asked, rewards_by
from tunemill.stages.training.online.reward_calls import Call
from tunemill.stages.training.online.reward_keys import RewardKeys
from tunemill.stages.training.online.reward_workers import workers
from tunemill.stages.training.online.rewards_body import open_rewards, reward_model

MODULE = """
import os, random, time
import helper

SHARED = []

class Seen:
    def __str__(self):
        return "seen"

def length(completions, **kwargs):
    print("what is printed is no answer")
    return [helper.size(one) for one in completions]

def right(completions, answer, trainer_state, log_metric, log_extra, **kwargs):
    log_metric("seen", trainer_state.global_step)
    log_extra("answer", answer)
    return [None if a is None else float(c == a) for c, a in zip(completions, answer)]

def only_what_it_takes(completion_ids):
    return [len(ids) for ids in completion_ids]

async def later(completions, **kwargs):
    return [1] * len(completions)

def drawn(completions, **kwargs):
    return [random.random() for _ in completions]

def raises(completions, **kwargs):
    return [1 / (one != "bad") for one in completions]

def hangs(completions, **kwargs):
    while "hang" in completions:
        time.sleep(.01)
    return [1.0] * len(completions)

def dies(completions, **kwargs):
    if "die" in completions:
        os._exit(3)
    return [1.0] * len(completions)

def too_few(completions, **kwargs):
    return [1.0]

def not_a_number(completions, **kwargs):
    return [float("nan") if one == "bad" else 1 for one in completions]

def a_dict(completions, **kwargs):
    return dict.fromkeys(range(len(completions)), 0.0)

def a_set(completions, **kwargs):
    return {number / 10 for number in range(len(completions))}

def a_text(completions, **kwargs):
    return "1" * len(completions)

def texts(completions, **kwargs):
    return ["0.5"] * len(completions)

def lazy(completions, **kwargs):
    return map(len, completions)

unsigned = max

def by_another_way(completions, **kwargs):
    import sys
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
    import hidden
    return [hidden.VALUE] * len(completions)

def by_a_folder(completions, **kwargs):
    import importlib, sys
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
    return [importlib.import_module("folder.hidden").VALUE] * len(completions)

def of_a_library(completions, **kwargs):
    import sys
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
    # Whoever imports is a library, as of the code that comes with a model.
    library = {"__name__": "library"}
    exec(compile("import hidden", "/somewhere/library.py", "exec"), library)
    return [library["hidden"].VALUE] * len(completions)

def process(completions, **kwargs):
    return [os.getpid()] * len(completions)

def of_objects(completions, log_extra, **kwargs):
    log_extra("seen", [Seen() for _ in completions])
    SHARED.extend(completions)
    return [len(SHARED)] * len(completions)

def imports_as_it_is_called(completions, **kwargs):
    import late
    return [late.size(one) for one in completions]

def shared(completions, **kwargs):
    return [len(SHARED)] * len(completions)

def slow(completions, **kwargs):
    time.sleep(.5)
    return [1.0] * len(completions)
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "own_rewards.py").write_text(MODULE)
    (folder / "helper.py").write_text("def size(text):\n    return len(text)\n")
    (folder / "lib" / "folder").mkdir(parents=True)
    for place in (folder / "lib", folder / "lib" / "folder"):
        (place / "hidden.py").write_text("VALUE = 1\n")
    (folder / "late.py").write_text("def size(text):\n    return 2 * len(text)\n")
    return [str(folder / f"{name}.py") for name in ("own_rewards", "helper", "late")]


def keys(code: list[str], *names: str, **more: Any) -> RewardKeys:
    return RewardKeys(reward_funcs=[f"own_rewards.{name}" for name in names], reward_code=code, **more)


def asked(*completions: str, **columns: list[Any]) -> Asked:
    """Groups of two."""
    count = len(completions)
    ids = [list(range(len(one))) for one in completions]
    return Asked(["p"] * count, completions, ids, columns, group=2, step=7, round=3)


def test_functions_are_called_as_trl_calls_them(code):
    config = keys(code, "length", "right", "only_what_it_takes", "later")
    with open_rewards(config, []) as rewards:
        scores = rewards(asked("a", "bcd", "ef", "", answer=["a", "x", None, None]))
    assert scores.names == ("length", "right", "only_what_it_takes", "later")
    assert scores.values_nf == [[1, 1, 1, 1], [3, 0, 3, 1], [2, None, 2, 1], [0, None, 0, 1]]
    assert scores.metrics == {"seen": 7} and scores.extra == {"answer": ["a", "x", None, None]}
    assert not scores.failures


def test_several_workers_take_parts_of_whole_groups_and_the_order_stays(code):
    config = keys(code, "length", "process", "drawn", reward_num_workers=2)
    completions = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff"]
    with open_rewards(config, []) as rewards:
        first, second = (rewards(asked(*completions)) for _ in range(2))
    assert [row[0] for row in first.values_nf] == [1, 2, 3, 4, 5, 6]
    by_part = [{row[1] for row in part} for part in (first.values_nf[:4], first.values_nf[4:])]
    assert [len(one) for one in by_part] == [1, 1]
    assert [row[2] for row in first.values_nf] == [row[2] for row in second.values_nf], "drawn alike again"


def test_what_fails_is_told_with_its_line_and_leaves_out_only_its_own_prompt(code):
    config = keys(code, "length", "raises", "not_a_number", failed_rewards=0.5)
    with open_rewards(config, []) as rewards:
        scores = rewards(asked("a", "b", "bad", "c", "d", "e"))
    assert scores.failed == {2, 3} and scores.failed_groups(2) == {1}
    assert [row[1] for row in scores.values_nf] == [1, 1, None, None, 1, 1]
    assert [row[0] for row in scores.values_nf] == [1, 1, 3, 1, 1, 1], "another reward is known all the same"
    line = MODULE[: MODULE.index("1 / (one")].count("\n") + 1
    words = [one.words for one in scores.failures]
    assert words == [
        f"trl.reward_funcs: own_rewards.raises raised ZeroDivisionError: division by zero ({code[0]}, line {line})",
        "trl.reward_funcs: own_rewards.not_a_number gave nan. A reward is a finite number, or None",
    ]


def test_more_failures_than_allowed_end_the_run(code):
    with open_rewards(keys(code, "raises"), []) as rewards:
        rewards(asked("a", "b", "c", "d", "e", "f", "bad", "g"))
        with pytest.raises(
            UserError, match=r"(?s)2 of 4 prompts failed.*allows 0.25.*division by zero.*4 comp"
        ):
            rewards(asked("bad", "b", "c", "d", "e", "bad", "f", "g"))
    with open_rewards(keys(code, "too_few", failed_rewards=1.0), []) as rewards:
        (failure, _) = rewards(asked("a", "b", "c", "d")).failures
    assert "gave 1 rewards for 2 completions" in failure.words


def test_what_is_no_list_of_numbers_is_no_reward(code):
    names = ("a_dict", "a_set", "a_text", "texts", "unsigned", "lazy")
    with open_rewards(keys(code, *names, failed_rewards=1.0), []) as rewards:
        scores = rewards(asked("a", "bc"))
    assert [row[:5] for row in scores.values_nf] == [[None] * 5] * 2
    assert [row[5] for row in scores.values_nf] == [1, 2]
    words = [one.words.removeprefix("trl.reward_funcs: own_rewards.") for one in scores.failures]
    assert [text.split(".")[0] for text in words[:3]] == [
        "a_dict gave a dict", "a_set gave a set", "a_text gave a str",
    ]  # fmt: skip
    assert words[3] == "texts gave '0.5'. A reward is a number, or None"
    assert words[4].startswith("unsigned raised ValueError: no signature found")


@pytest.mark.parametrize(
    ("name", "place"), [("by_another_way", "lib/hidden.py"), ("by_a_folder", "lib/folder")]
)
def test_what_is_imported_by_way_of_the_path_of_python_is_refused(code, name, place):
    with open_rewards(keys(code, name, failed_rewards=1.0), []) as rewards:
        (failure,) = rewards(asked("a", "bc")).failures
    assert failure.words.startswith(f"{Path(code[0]).parent / place}: imported by way of sys.path, so")


def test_what_a_library_imports_is_its_own_business(code):
    with open_rewards(keys(code, "of_a_library"), []) as rewards:
        scores = rewards(asked("a", "bc"))
    assert scores.values_nf == [[1], [1]] and not scores.failures


def test_a_function_that_hangs_or_ends_its_process_is_ended_and_named(code):
    config = keys(code, "hangs", "dies", reward_timeout=2.0, failed_rewards=1.0)
    started = time.monotonic()
    with open_rewards(config, []) as rewards:
        scores = rewards(asked("hang", "b", "die", "c", "d", "e"))
    assert time.monotonic() - started < 20
    assert [row[0] for row in scores.values_nf] == [None, None, 1, 1, 1, 1]
    assert [row[1] for row in scores.values_nf] == [1, 1, None, None, 1, 1]
    hung, died = scores.failures
    assert "own_rewards.hangs took more than 2 s (pipeline.reward_timeout)" in hung.words
    assert "own_rewards.dies ended its process (exit 3)" in died.words


def test_a_process_that_has_ended_between_two_rounds_is_replaced(code):
    with workers(["own_rewards.process"], code, 1, 600) as pool:
        call = Call(0, (0,), {"completions": ["a"]}, 0, "")
        (first,) = pool.run([call])
        (worker,) = pool.alive
        worker.process.kill()
        worker.process.wait()
        (second,) = pool.run([call])
        assert second.failure is None and second.values != first.values
        (worker,) = pool.alive
        worker.process.kill()
        wait([worker.connection], 5)
        # Whether it is found to have ended before it is asked or by asking is a race; neither is an error of its own.
        (third,) = pool.run([call])
        assert (
            third.failure is None or "own_rewards.process ended its process (signal SIGKILL)" in third.failure
        )


def test_functions_of_a_file_share_it_and_log_what_they_like(code):
    with open_rewards(keys(code, "of_objects", "shared"), []) as rewards:
        scores = rewards(asked("a", "b"))
    assert scores.values_nf == [[2, 2], [2, 2]] and scores.extra == {"seen": ["seen", "seen"]}


def test_a_function_may_import_its_local_modules_as_it_is_called(code):
    with open_rewards(keys(code, "imports_as_it_is_called", "length"), []) as rewards:
        assert rewards(asked("a", "bc")).values_nf == [[2, 1], [4, 2]]


def test_a_name_that_is_no_function_is_a_setting_that_fails(code):
    with (
        open_rewards(keys(code, "SHARED"), []) as rewards,
        pytest.raises(SettingError, match="no function SHARED"),
    ):
        rewards(asked("a", "b"))


def test_a_model_that_gives_no_number_has_failed():
    config = RewardKeys(reward_funcs=["./judge"], failed_rewards=0.5)
    told = [1.0, 2.0, float("nan"), 3.0, 4.0, 5.0]
    with rewards_by(config, [], lambda _: lambda _: told) as rewards:
        scores = rewards(asked("a", "b", "c", "d", "e", "f"))
    assert [row[0] for row in scores.values_nf] == [1, 2, None, None, 4, 5] and scores.failed == {2, 3}
    assert (
        scores.failures[0].words == "trl.reward_funcs: ./judge gave nan. A reward is a finite number, or None"
    )
    told[0] = float("inf")
    with (
        rewards_by(config, [], lambda _: lambda _: told) as rewards,
        pytest.raises(UserError, match="2 of 3 prompts"),
    ):
        rewards(asked("a", "b", "c", "d", "e", "f"))


def test_a_module_that_does_not_load_is_a_setting_that_fails(tmp_path):
    (tmp_path / "broken.py").write_text("def f(**kwargs):\n    return []\nraise RuntimeError('no')\n")
    config = RewardKeys(reward_funcs=["broken.f"], reward_code=[str(tmp_path / "broken.py")])
    with open_rewards(config, []) as rewards, pytest.raises(SettingError, match=r"RuntimeError: no .*line 3"):
        rewards(asked("a", "b"))


def test_names_that_mean_nothing_here_are_refused_before(tmp_path, code):
    with pytest.raises(ValueError, match="3 weights for 1"):
        keys(code, "length", reward_weights=[1, 2, 3])
    with pytest.raises(ValueError, match=r"there is no others\.py beside the YAML"):
        RewardKeys(reward_funcs=["others.f"], reward_code=code)
    with pytest.raises(ValueError, match="NeMo Gym"):
        RewardKeys(reward_funcs=["axolotl.integrations.nemo_gym.rewards.reward_nemo_gym_verify"])
    (fault,) = keys(code, "missing").faults()
    assert fault.reason.endswith("has no function missing")
    (fault,) = keys(code, "one").faults()
    assert fault.reason.endswith("has no function one"), "what a function calls something is no function"
    assert not list(keys(code, "helper", "SHARED", "later").faults()), "whatever the module has may be called"
    (tmp_path / "helper.py").write_text("def size(text:\n")
    (fault,) = keys([code[0], str(tmp_path / "helper.py")], "length").faults()
    assert "helper.py, line 1" in fault.reason
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (fault,) = RewardKeys(reward_funcs=[str(tmp_path)]).faults()
    assert str(tmp_path) in fault.reason


def test_rewards_are_called_by_different_names_and_weigh_one_each(code):
    config = RewardKeys(
        reward_funcs=["own_rewards.length", "helper.size", str(Path("models/judge")), "asset://rm/trained"],
        reward_code=code,
    )
    assert config.reward_names == ["length", "size", "judge", "trained"] and config.weights == [1, 1, 1, 1]


KILLED = """
import sys
from tunemill.stages.training.online.reward_calls import Call
from tunemill.stages.training.online.reward_workers import workers

with workers(["own_rewards.hangs"], sys.argv[1:], 1, 600) as pool:
    pool._idle(1).__next__()
    print(pool.alive[0].process.pid, flush=True)
    pool.run([Call(0, (0,), {"completions": ["hang"]}, 0, "")])
"""


def test_a_function_that_hangs_does_not_outlive_a_run_that_was_killed(code):
    command = [sys.executable, "-c", KILLED, *code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        worker = int(run.stdout.readline())
        run.kill()
    until = time.monotonic() + 20
    while Path(f"/proc/{worker}/stat").exists() and time.monotonic() < until:
        if Path(f"/proc/{worker}/stat").read_text().split(") ")[1].startswith("Z"):
            break
        time.sleep(0.05)
    assert time.monotonic() < until


def test_a_reward_model_scores_prompt_and_completion_as_one_text(tmp_path, code):
    base = make_model(tmp_path / "base")
    torch.manual_seed(1)
    scorer = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
    folder = tmp_path / "scorer"
    scorer.save_pretrained(folder)
    words = load_words(make_tokenizer(folder))
    completions = ["a", " and much longer than that", "b c", ""]
    texts = [f"say: {one}" for one in completions]
    with torch.no_grad():
        alone = [
            scorer(**words(text, add_special_tokens=False, return_tensors="pt")).logits.item()
            for text in texts
        ]
    config = keys(code, "length")
    config = config.model_copy(
        update={"reward_funcs": [str(folder), *config.reward_funcs, "asset://rm/trained"]}
    )
    given = Asked(["say: "] * 4, completions, [[]] * 4, {}, group=2, step=0, round=0)
    with open_rewards(config, [Model(folder)]) as rewards:
        scores = rewards(given)
    assert [row[0] for row in scores.values_nf] == pytest.approx(alone, abs=1e-5)
    assert [row[2] for row in scores.values_nf] == [row[0] for row in scores.values_nf]
    assert [row[1] for row in scores.values_nf] == [1, 26, 3, 0]
    scorer.config.pad_token_id = None
    scorer.save_pretrained(tmp_path / "unpadded")
    make_tokenizer(tmp_path / "unpadded")
    told = reward_model(tmp_path / "unpadded")(given)
    assert told == pytest.approx(alone, abs=1e-5), "without a token of padding each is read by itself"
    with pytest.raises(SettingError, match="is a language model, and a reward model scores texts"):
        reward_model(base)
