"""Processes that share a model train it as one that has it all: FSDP2, HSDP and ZeRO on a machine without a GPU."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stages.training.sharded_cases import ShardedConfig, train_sharded
from support.own_environment import packages_with_deepspeed
from support.tiny_model import workspace

from tunemill.pipelines.cli import main
from tunemill.resources.calls import Call, name_of
from tunemill.resources.errors import LaunchError
from tunemill.resources.launcher import in_child
from tunemill.stages.errors import UserError
from tunemill.stages.models.sharded_weights_body import join
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.checkpoints import checkpoint_folders, last_complete

# A step's loss, of about 6, and a weight after ten steps of 1e-3.
FIRST, CURVE, WEIGHTS = 1e-6, 1e-4, 1e-4
# Where attention is added up part by part, too: three or four roundings of a float32 of that size.
SPLIT_FIRST = 2e-6
ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Trained:
    """What the first process said of each training."""

    losses: dict[str, dict[int, float]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    opened: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)

    def hear(self, event: dict[str, Any]) -> None:
        if event["type"] == "table" and event["columns"] == ["path"]:
            self.opened[event["title"]] = [path for (path,) in event["rows"]]
        elif event["type"] == "table" and event["columns"] == ["at"]:
            self.told[event["title"]] = [at for (at,) in event["rows"]]
        elif event["type"] == "table":
            self.losses[event["title"]] = dict(event["rows"])
        elif event["type"] == "summary":
            self.figures |= event["metrics"]
        elif event["type"] == "log":
            self.logs.append(event["message"])


def run(folder: Path, processes: int, names: Sequence[str], **settings: Any) -> Trained:
    """Train in so many processes, in this one where it is one."""
    heard = Trained()
    given = {"trainings": list(names), "processes": processes, "folder": str(folder), **settings}
    places = workspace(folder / "calls" / f"{len(list((folder / 'calls').glob('*')))}")
    if processes == 1:
        train_sharded(ShardedConfig(**given), places, Report(heard.hear))
        return heard
    call = Call(
        body=name_of(train_sharded),
        config_class=name_of(ShardedConfig),
        config=given,
        inputs={},
        workspace_class=name_of(Workspace),
        workspace={name: str(getattr(places, name)) for name in ("data", "checkpoints", "logs")},
        report_class=name_of(Report),
        user_error=name_of(UserError),
        processes=processes,
    )
    in_child(call, heard.hear)
    return heard


@pytest.fixture(scope="module", autouse=True)
def tests_importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def check_same(
    folder: Path, found: Trained, wanted: Trained, name: str, weights: float = WEIGHTS, first: float = FIRST
) -> None:
    """The curve of one process, and its result."""
    sharding, _, case = name.partition(":")
    losses, same = found.losses[name], wanted.losses[f"alone:{case}"]
    assert losses.keys() == same.keys()
    assert abs(losses[1] - same[1]) < first
    assert max(abs(losses[step] - same[step]) for step in same) < CURVE
    (file,) = (one.name for one in (folder / f"alone-{case}" / "data").glob("*model.safetensors"))
    trained, alone = (load_file(folder / f"{one}-{case}" / "data" / file) for one in (sharding, "alone"))
    assert trained.keys() == alone.keys()
    assert max(float((trained[key] - alone[key]).abs().max()) for key in alone) < weights
    there = {path.name for path in (folder / f"{sharding}-{case}" / "data").iterdir()}
    assert there == {path.name for path in (folder / f"alone-{case}" / "data").iterdir()}


LONG = ("long", "long-lora")
CASES = ("sft", "sft-lora", "dpo", "dpo-lora", "nf4")
# And what ZeRO-3 is not known to do.
BY_FSDP = (*CASES, "qat")
# How checkpoints are written: while training waits, and held up while it goes on.
AT_WRITING = ("waits:sft", "waits:sft-lora", "held:sft")
GOING_ON = ("sft", "sft-lora", "nf4")
OTHER_METHODS = ("orpo", "simpo", "ipo", "kto", "reward", "process", "distillation", "live-lora")


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained, Trained]:
    folder = tmp_path_factory.mktemp("fsdp")
    alone = run(folder, 1, [f"alone:{case}" for case in (*BY_FSDP, *LONG)])
    shared = [*(f"fsdp:{case}" for case in BY_FSDP), *(f"context:{case}" for case in LONG)]
    return folder, alone, run(folder, 2, ["unhelped:long", "parts", *shared, *AT_WRITING])


@pytest.mark.slow
@pytest.mark.parametrize("case", BY_FSDP)
def test_fsdp2_trains_as_one_process(fsdp: tuple[Path, Trained, Trained], case: str) -> None:
    folder, alone, two = fsdp
    name = f"fsdp:{case}"
    assert two.figures[f"{name}/processes"] == 2
    assert two.figures[f"{name}/exchanged_by"].startswith("FSDP")
    assert two.figures[f"{name}/layout"] == "(Shard(dim=0),)"
    assert two.figures[f"{name}/parameters_in_parts"] > 20 and not two.figures[f"{name}/parameters_whole"]
    check_same(folder, two, alone, name)


@pytest.mark.slow
def test_what_is_gathered_is_what_lies_in_parts_bit_for_bit(
    fsdp: tuple[Path, Trained, Trained], tmp_path: Path
) -> None:
    folder, *_ = fsdp
    parts = load_file(join(folder / "parts" / "parts", tmp_path / "joined"))
    whole = load_file(folder / "parts" / "whole" / "model.safetensors")
    assert parts.keys() - whole.keys() == {"lm_head.weight"} and whole.keys() < parts.keys()
    assert torch.equal(parts["lm_head.weight"], whole["model.embed_tokens.weight"])
    assert all(
        torch.equal(parts[name], whole[name]) and parts[name].dtype == torch.bfloat16 for name in whole
    )


@pytest.mark.slow
def test_the_command_joins_a_checkpoint(fsdp: tuple[Path, Trained, Trained], tmp_path: Path) -> None:
    folder, *_ = fsdp
    checkpoint = last_complete(folder / "fsdp-sft" / "checkpoints")
    assert checkpoint is not None and checkpoint.name == "checkpoint-8"
    yaml, joined = tmp_path / "p.yml", tmp_path / "joined"
    yaml.write_text("{}")
    command = ["merge-sharded-fsdp-weights", str(yaml), "--from", str(checkpoint), "--to", str(joined)]
    assert main(command) == 0
    parts = load_file(joined / "model.safetensors")
    whole = load_file(folder / "alone-sft" / "checkpoints" / "checkpoint-8" / "model.safetensors")
    assert parts.keys() == whole.keys()
    assert max(float((parts[name] - whole[name]).abs().max()) for name in whole) < WEIGHTS
    assert not list((folder / "fsdp-sft" / "checkpoints").glob("gathered*")), (
        "what is gathered takes no place"
    )


def keep_until(folder: Path, step: int) -> None:
    """A training that was ended after a checkpoint: nothing of it is left but that, and what is before."""
    for checkpoint in folder.glob("checkpoints/checkpoint-*"):
        if int(checkpoint.name.partition("-")[2]) > step:
            shutil.rmtree(checkpoint)
    shutil.rmtree(folder / "data")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written_by", "going_on", "processes"),
    [("fsdp", "alone", 1), ("alone", "fsdp", 2)],
)
def test_it_goes_on_with_another_number_of_processes(
    fsdp: tuple[Path, Trained, Trained], tmp_path: Path, written_by: str, going_on: str, processes: int
) -> None:
    folder, alone, _ = fsdp
    for case in GOING_ON:
        shutil.copytree(folder / "given" / case, tmp_path / "given" / case)
        shutil.copytree(folder / f"{written_by}-{case}", tmp_path / f"{going_on}-{case}")
        keep_until(tmp_path / f"{going_on}-{case}", 4)
    found = run(tmp_path, processes, [f"{going_on}:{case}" for case in GOING_ON])
    for case in GOING_ON:
        same, losses = alone.losses[f"alone:{case}"], found.losses[f"{going_on}:{case}"]
        assert min(losses) == 5
        assert max(abs(losses[step] - same[step]) for step in losses) < CURVE


@pytest.mark.slow
@pytest.mark.parametrize("case", ["sft", "sft-lora"])
def test_what_is_written_while_training_goes_on_is_the_same_to_the_bit(
    fsdp: tuple[Path, Trained, Trained], case: str
) -> None:
    folder, *_ = fsdp
    beside, waited = (folder / f"{one}-{case}" for one in ("fsdp", "waits"))
    written = [*beside.glob("data/*.safetensors"), *beside.glob("checkpoints/checkpoint-8/*/*.distcp")]
    assert len(written) == 5
    for path in written:
        assert path.read_bytes() == (waited / path.relative_to(beside)).read_bytes(), path


@pytest.mark.slow
def test_the_training_goes_on_while_a_checkpoint_is_written_and_the_next_one_waits(
    fsdp: tuple[Path, Trained, Trained],
) -> None:
    folder, alone, two = fsdp
    # Files of the checkpoint at step 2 were there only after step 3.
    check_same(folder, two, alone, "held:sft")
    assert [one.name for one in checkpoint_folders(folder / "held-sft" / "checkpoints")] == [
        f"checkpoint-{step}" for step in (2, 4, 6, 8)
    ]
    opened = two.opened["held:sft"]
    for step in (2, 4, 6):
        sealed = opened.index(f"checkpoint-{step}/complete.json.part")
        assert not [path for path in opened[:sealed] if path.startswith(f"checkpoint-{step + 2}/")]
    assert two.told["held:sft"] == [f"step {step} of 10" for step in (2, 4, 6, 8)]


@pytest.mark.slow
def test_a_process_killed_while_a_checkpoint_is_written_ends_the_training_which_goes_on_from_the_one_before(
    fsdp: tuple[Path, Trained, Trained], tmp_path: Path
) -> None:
    folder, alone, _ = fsdp
    shutil.copytree(folder / "given" / "sft", tmp_path / "given" / "sft")
    with pytest.raises(LaunchError, match="rank 1 of 2 was ended by SIGKILL"):
        run(tmp_path, 2, ["stuck:sft"], killed=[1, 9])
    (tmp_path / "stuck-sft").rename(tmp_path / "fsdp-sft")
    assert (tmp_path / "fsdp-sft" / "checkpoints" / "checkpoint-8").is_dir()
    found = run(tmp_path, 2, ["fsdp:sft"])
    losses = found.losses["fsdp:sft"]
    assert min(losses) == 5
    assert max(abs(losses[step] - alone.losses["alone:sft"][step]) for step in losses) < CURVE


@pytest.mark.slow
def test_a_checkpoint_that_finds_no_room_ends_the_training_with_words(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="the disk is full: no space left") as found:
        run(tmp_path, 2, ["full:sft"])
    assert found.value.user
    assert last_complete(tmp_path / "full-sft" / "checkpoints").name == "checkpoint-4"


@pytest.mark.slow
@pytest.mark.parametrize("case", LONG)
def test_processes_that_split_each_sequence_train_as_one(
    fsdp: tuple[Path, Trained, Trained], case: str
) -> None:
    folder, alone, two = fsdp
    name = f"context:{case}"
    assert two.figures[f"{name}/processes"] == 2
    assert two.figures[f"{name}/exchanged_by"].startswith("FSDP")
    assert two.figures[f"{name}/layout"] == "(Shard(dim=0),)"
    check_same(folder, two, alone, name, first=SPLIT_FIRST)


@pytest.mark.slow
def test_a_cpu_cannot_split_a_sequence(fsdp: tuple[Path, Trained, Trained]) -> None:
    *_, two = fsdp
    (said,) = (line for line in two.logs if line.startswith("unhelped:long"))
    assert "cannot split attention in torch.float32 on cpu among processes" in said
    assert "unhelped:long" not in two.losses


@pytest.mark.exhaustive
def test_pairs_that_split_sequences_share_the_model_too(tmp_path: Path) -> None:
    alone = run(tmp_path, 1, ["alone:long", "alone:long-lora"])
    four = run(tmp_path, 4, ["contexts:long", "contexts:long-lora"])
    for name in ("contexts:long", "contexts:long-lora"):
        assert four.figures[f"{name}/processes"] == 4
        check_same(tmp_path, four, alone, name, first=SPLIT_FIRST)


@pytest.mark.exhaustive
def test_so_do_other_methods(tmp_path: Path) -> None:
    alone = run(tmp_path, 1, [f"alone:{case}" for case in OTHER_METHODS])
    two = run(tmp_path, 2, [f"fsdp:{case}" for case in OTHER_METHODS])
    for case in OTHER_METHODS:
        assert two.figures[f"fsdp:{case}/parameters_in_parts"] > 20
        assert not two.figures[f"fsdp:{case}/parameters_whole"]
        check_same(tmp_path, two, alone, f"fsdp:{case}")


@pytest.mark.exhaustive
def test_weights_in_4_bits_that_cannot_be_shared_out_stay_whole(tmp_path: Path) -> None:
    alone, two = run(tmp_path, 1, ["alone:stored"]), run(tmp_path, 2, ["fsdp:stored"])
    # Seven in each of two layers.
    assert two.figures["fsdp:stored/parameters_whole"] == 14
    assert two.figures["fsdp:stored/parameters_in_parts"] == 49 - 14
    check_same(tmp_path, two, alone, "fsdp:stored")


FOUR = {"micro_batch_size": 1, "gradient_accumulation_steps": 4}


@pytest.mark.exhaustive
def test_copies_of_a_model_in_parts_train_as_one_process(tmp_path: Path) -> None:
    alone = run(tmp_path, 1, ["alone:sft", "alone:dpo-lora"], changes=FOUR)
    four = run(tmp_path, 4, ["hsdp:sft", "hsdp:dpo-lora"], changes=FOUR)
    for name in ("hsdp:sft", "hsdp:dpo-lora"):
        assert four.figures[f"{name}/layout"] == "(Replicate(), Shard(dim=0))"
        assert four.figures[f"{name}/processes"] == 4 and not four.figures[f"{name}/parameters_whole"]
        check_same(tmp_path, four, alone, name)


@pytest.mark.exhaustive
@pytest.mark.parametrize("settings", [
    {"offload_params": True, "cpu_ram_efficient_loading": True, "activation_checkpointing": True},
    {"reshard_after_forward": False, "transformer_layer_cls_to_wrap": "LlamaMLP"},
])  # fmt: skip
def test_settings_of_fsdp_change_no_result(tmp_path: Path, settings: dict[str, Any]) -> None:
    alone = run(tmp_path, 1, ["alone:sft", "alone:sft-lora"])
    two = run(tmp_path, 2, ["fsdp:sft", "fsdp:sft-lora"], changes={"fsdp_config": settings})
    for name in ("fsdp:sft", "fsdp:sft-lora"):
        check_same(tmp_path, two, alone, name)


@pytest.mark.exhaustive
@pytest.mark.parametrize("sharding", ["zero2", "zero3"])
def test_zero_trains_as_one_process_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sharding: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{os.environ['PYTHONPATH']}{os.pathsep}{packages_with_deepspeed()}")
    monkeypatch.syspath_prepend(packages_with_deepspeed())
    cases = CASES if sharding == "zero3" else BY_FSDP
    alone = run(tmp_path, 1, [f"alone:{case}" for case in cases])
    two = run(tmp_path, 2, [f"{sharding}:{case}" for case in cases])
    for case in cases:
        name = f"{sharding}:{case}"
        assert two.figures[f"{name}/exchanged_by"] == "DeepSpeedEngine"
        assert two.figures[f"{name}/processes"] == 2
        assert two.figures.get(f"{name}/layout") == ("ZeRO-3" if sharding == "zero3" else None)
        check_same(tmp_path, two, alone, name)
    for case in ("sft", "sft-lora"):
        keep_until(tmp_path / f"{sharding}-{case}", 4)
    again = run(tmp_path, 2, [f"{sharding}:{case}" for case in ("sft", "sft-lora")])
    for case in ("sft", "sft-lora"):
        losses, same = again.losses[f"{sharding}:{case}"], alone.losses[f"alone:{case}"]
        assert min(losses) == 5 and max(abs(losses[step] - same[step]) for step in losses) < CURVE


# Which training goes on with what ZeRO, or one process, has begun of the same case.
BY_ONE = {"alone:sft": "zero2", "alone:sft-lora": "zero3"}
BY_TWO = {
    "zero2:sft": "alone",
    "zero3:sft-lora": "alone",
    "zero3:sft": "zero2",
    "zero2:sft-lora": "zero3",
    "fsdp:sft": "zero3",
}


@pytest.mark.exhaustive
def test_zero_goes_on_with_another_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{os.environ['PYTHONPATH']}{os.pathsep}{packages_with_deepspeed()}")
    monkeypatch.syspath_prepend(packages_with_deepspeed())
    cases, begun = ("sft", "sft-lora"), tmp_path / "begun"
    alone = run(begun, 1, [f"alone:{case}" for case in cases])
    run(begun, 2, [f"{sharding}:{case}" for sharding in ("zero2", "zero3") for case in cases])
    for processes, going_on in ((1, BY_ONE), (2, BY_TWO)):
        folder = tmp_path / f"by_{processes}"
        shutil.copytree(begun / "given", folder / "given")
        for name, sharding in going_on.items():
            _, _, case = name.partition(":")
            shutil.copytree(begun / f"{sharding}-{case}", folder / name.replace(":", "-"))
            keep_until(folder / name.replace(":", "-"), 4)
        found = run(folder, processes, list(going_on))
        for name in going_on:
            _, _, case = name.partition(":")
            losses, same = found.losses[name], alone.losses[f"alone:{case}"]
            assert min(losses) == 5 and max(abs(losses[step] - same[step]) for step in losses) < CURVE, name
            (file,) = (folder / name.replace(":", "-") / "data").glob("*model.safetensors")
            trained, wanted = load_file(file), load_file(begun / f"alone-{case}" / "data" / file.name)
            assert max(float((trained[key] - wanted[key]).abs().max()) for key in wanted) < WEIGHTS, name
            assert not (folder / name.replace(":", "-") / "checkpoints" / "universal").exists()
