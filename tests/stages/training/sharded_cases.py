"""Trainings in which processes share the model: a stage body that does them one after the other in one group."""

import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch.distributed.checkpoint as dist_cp
from accelerate.state import AcceleratorState
from pydantic import Field
from support.ranks_cases import CASES, EACH, METHODS, prepared
from support.split_attention import split_on_cpus
from support.tiny_model import Heard, tiny_config, workspace
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from tunemill.stages.declaration import StageConfig
from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.gathered_body import gather_through, named_tensors
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

FSDP = {"fsdp_version": 2}
HSDP = {"fsdp_version": 2, "dp_replicate_size": 2, "dp_shard_size": 2}
SHARDINGS: dict[str, dict[str, Any]] = {
    "alone": {},
    "copies": {},
    "fsdp": FSDP,
    # The same, where the training waits for each checkpoint; where one is held up, or never gets there; and where the
    # disk is full.
    "waits": {**FSDP, "asynchronous_checkpoints": False},
    "held": {**FSDP, "save_steps": 2, "save_total_limit": 9},
    "stuck": FSDP,
    "full": FSDP,
    "hsdp": HSDP,
    # Processes split each sequence; where nothing helps them to do so on a CPU; and where two such pairs share a model.
    "context": {"context_parallel_size": 2},
    "unhelped": {"context_parallel_size": 2},
    "contexts": {"context_parallel_size": 2, "fsdp_version": 2},
    "zero2": {"deepspeed": "deepspeed_configs/zero2.json"},
    "zero3": {"deepspeed": "deepspeed_configs/zero3.json"},
}


# The checkpoint whose files wait, and the step that they wait for.
HELD = {"held": (2, 3), "stuck": (8, 99)}


class ShardedConfig(StageConfig):
    """Which trainings, each as `<sharding>:<case of ranks_cases>`, and how a rank is to fail."""

    trainings: list[str] = Field([], description="names")
    processes: int = Field(1, description="how many processes train")
    folder: str = Field("", description="where all that outlives this is")
    killed: list[int] = Field([], description="a rank, and the step at which it kills itself")
    changes: dict[str, Any] = Field({}, description="settings")
    checkpoints: str = Field("", description="where checkpoints are, in place of that")


def train_sharded(config: ShardedConfig, out: Workspace, report: Report) -> None:  # noqa: ARG001 - a body's
    """Each in a folder of its own, which all ranks share; `parts` writes a model in parts and in one piece."""
    torch.set_num_threads(1)
    ranks.meet(60)
    for name in config.trainings:
        if name == "parts":
            parts_and_whole(Path(config.folder) / name)
            continue
        sharding, _, case = name.partition(":")
        forget_accelerate()
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        with ranks.first_before_others():
            given = prepared(case, Path(config.folder) / "given" / case)
        # Each writes the same rows anew.
        ranks.wait_for_all()
        folder = Path(config.folder) / name.replace(":", "-")
        mine = workspace(folder / f"rank_{ranks.number()}")
        checkpoints = Path(config.checkpoints or config.folder) / folder.name / "checkpoints"
        mine = Workspace(folder / "data" if ranks.is_first() else mine.data, checkpoints, mine.logs)
        for one in (mine.data, mine.checkpoints):
            one.mkdir(parents=True, exist_ok=True)
        heard = Heard()
        settings = {
            **EACH,
            **CASES[case],
            **SHARDINGS[sharding],
            **config.changes,
            "processes": config.processes,
        }
        body, kind = METHODS.get(case.partition("-")[0], (sft, SftConfig))
        heeds = [partial(tell, heard, report, config.killed)]
        held = Held(folder / "checkpoints", *HELD[sharding]) if sharding in HELD else None
        if held is not None:
            heeds.insert(0, held.hear)
        if sharding == "full" and ranks.number() == 1:
            heeds.insert(0, partial(fill, folder / "checkpoints"))
        told = Report(partial(tell_all, heeds))
        with split_on_cpus() if sharding.startswith("context") else nullcontext():
            try:
                body(kind(**settings), **{"evaluation_data": None, **given}, out=mine, report=told)
            except SettingError as error:
                report.log(f"{name}: {error}")
                continue
        report.table(name, ["step", "loss"], [[step, loss] for step, loss in heard.steps("loss").items()])
        said = ("processes", "exchanged_by", "parameters_in_parts", "parameters_whole", "layout")
        report.summary(**{f"{name}/{one}": heard.summary[one] for one in said if one in heard.summary})
        operations = torch._dynamo.utils.counters["stats"]["calls_captured"]
        report.summary(**{f"{name}/operations_compiled": operations})
        if held is not None:
            report.table(name, ["path"], [[path] for path in held.opened])
            report.table(name, ["at"], [[event["at"]] for event in heard.of("checkpoint")])


class Held:
    """The files of a checkpoint wait until a step is done; and in which order all files were opened."""

    def __init__(self, checkpoints: Path, held: int, until: int) -> None:
        self._root, self._held, self._until = f"{checkpoints}/", f"checkpoint-{held}/", until
        self._done, self._went_on = threading.Event(), False
        self.opened: list[str] = []
        sys.addaudithook(self._on_open)

    def _on_open(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name != "open" or not str(arguments[0]).startswith(self._root):
            return
        path = str(arguments[0]).removeprefix(self._root)
        if path.startswith(self._held) and path.endswith(".distcp") and not self._went_on:
            if not self._done.wait(60):
                raise TimeoutError("the training waited for a checkpoint")
            # Longer than the steps until the next one.
            time.sleep(1)
            self._went_on = True
        self.opened.append(path)

    def hear(self, event: dict[str, Any]) -> None:
        """What the training says."""
        if event["type"] == "step" and event["step"] == self._until:
            self._done.set()


def parts_and_whole(folder: Path) -> None:
    """A model with two names for its embeddings, and matrices of which no process gets as much as the other."""
    torch.manual_seed(0)
    settings = tiny_config(tie_word_embeddings=True, hidden_size=34, intermediate_size=51, head_dim=4)
    model = AutoModelForCausalLM.from_config(settings).to(torch.bfloat16)
    mesh = init_device_mesh("cpu", (ranks.count(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    dist_cp.save({"model": get_model_state_dict(model)}, storage_writer=FileSystemWriter(folder / "parts"))
    (folder / "whole").mkdir(exist_ok=True)
    weights = gather_through(folder / "gathered.safetensors", named_tensors(model), ranks.is_first())
    if ranks.is_first():
        model.save_pretrained(folder / "whole", state_dict=weights)


def tell(heard: Heard, report: Report, killed: list[int], event: dict[str, Any]) -> None:
    """Keep what is said; die at the step that is asked for."""
    heard.events.append(event)
    if event["type"] == "checkpoint":
        report.log(event["at"])
    if event["type"] == "step" and killed and [ranks.number(), event["step"]] == killed:
        os.kill(os.getpid(), signal.SIGKILL)


def tell_all(heeds: list[Any], event: dict[str, Any]) -> None:
    """One after the other."""
    for heed in heeds:
        heed(event)


def fill(checkpoints: Path, event: dict[str, Any]) -> None:
    """What this process is to write of its optimizer after step 8 finds no room."""
    if event["type"] == "step" and event["step"] == 7:
        folder = checkpoints / "checkpoint-8" / "optimizer_0"
        folder.mkdir(parents=True)
        (folder / "__1_0.distcp").symlink_to("/dev/full")


def forget_accelerate() -> None:
    """What accelerate keeps in the process and in its environment of the training before."""
    AcceleratorState._reset_state(reset_partial_state=True)
    # Otherwise transformers would load the next model as ZeRO-3 loads it.
    unset_hf_deepspeed_config()
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "FSDP_CPU_RAM_EFFICIENT_LOADING"):
        os.environ.pop(name, None)
