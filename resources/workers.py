"""A call in the workers of a Ray cluster, which Ray Train starts, and ends together.

This process, the stage's, is Ray's driver: Ray ends what it has started as soon as it is gone, killed or not, so no job
is left behind. The workers run the same call as ranks of one machine do (resources/ranks.py), over the same folders,
and tell of it through a socket of this process. What any of them prints goes through Ray into output.log.
"""

import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import AuthenticationError
from multiprocessing.connection import (
    Client,
    Connection,
    Listener,
    answer_challenge,
    deliver_challenge,
)
from pathlib import Path
from typing import Any

from tunemill.resources.calls import Call, Ray, Sink
from tunemill.resources.environment import FIXED
from tunemill.resources.machine_failures import machine_failed
from tunemill.resources.rank_failures import Standing, verdict
from tunemill.resources.ranks import Failed, hear, rank_log, speak
from tunemill.resources.redaction import redacted, secrets_in

NEEDED = "pipeline.launcher.kind: ray needs Ray, which is not installed here: pip install 'tunemill[ray]'"
# So long workers may take to say their last words when Ray has given up on them.
LAST_SECONDS = 5.0
# In seconds: how long a worker waits for the others.
PATIENCE = 1800
# Ray's own settings, wherever it was started: each line that is printed is told, without colours and not counted.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
# What of this process's environment the workers have too; what is secret in it nobody needs who only trains.
PASSED = ("PYTHONPATH", "OMP_NUM_THREADS")
PASSED_BEGIN = ("GLOO_", "NCCL_")
# What shapes a result: workers must have what this machine has, for its versions are in the key.
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "accelerate", "safetensors", "numpy")


def in_workers(call: Call, ray_settings: Ray, sink: Sink, request: Path) -> int:
    """Run the body in each of the call's workers; 0, or 1 when `sink` has been told why it failed."""
    os.environ.update(SETTINGS)
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        said = NEEDED if (error.name or "").partition(".")[0] == "ray" else f"{NEEDED}. It says: {error}"
        sink({"type": "failed", "message": said})
        return 1
    try:
        ray.init(
            ray_settings.address, runtime_env={"env_vars": environment(os.environ)}, logging_level="warning"
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = ray_settings.address or "the cluster of this machine"
        sink({"type": "failed", "message": f"pipeline.launcher: {where}: Ray does not answer: {error}"})
        return 1
    each = wanted(ray_settings, call.processes, ray.cluster_resources())
    if lack := lacking(each, call.processes, ray.cluster_resources()):
        sink({"type": "log", "message": f"the cluster has not enough for all workers now, and waits: {lack}"})
    # Ray Train keeps notes of a run, which all machines must see; nobody reads them here.
    notes = Path(call.workspace["checkpoints"]) / "ray"
    with Ears(call, sink, ray.util.get_node_ip_address(), request.parent) as ears:
        try:
            TorchTrainer(
                as_worker,
                train_loop_config={
                    "call": call,
                    "request": str(request),
                    "address": ears.address,
                    "key": ears.key,
                    "versions": versions(),
                },
                torch_config=TorchConfig(None if each.get("GPU") else "gloo", timeout_s=timeout_of(call)),
                scaling_config=ScalingConfig(
                    num_workers=call.processes, use_gpu=bool(each.get("GPU")), resources_per_worker=each
                ),
                run_config=RunConfig(
                    name=ray_settings.name,
                    storage_path=str(notes),
                    failure_config=FailureConfig(max_failures=0),
                ),
            ).fit()
        except ray.train.TrainingFailedError as error:
            sink(ears.verdict(str(error)))
            return 1
        finally:
            shutil.rmtree(notes, ignore_errors=True)
    return 0


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What workers have in their environment beside what the cluster gives them."""
    passed = {
        name: value for name, value in inherited.items() if name in PASSED or name.startswith(PASSED_BEGIN)
    }
    return {**passed, **FIXED}


def wanted(settings: Ray, workers: int, cluster: Mapping[str, float]) -> dict[str, float]:
    """What is set aside for each worker: what is asked for, or else a CPU, and a GPU where the cluster has enough."""
    if settings.resources:
        return dict(settings.resources)
    return {"CPU": 1, "GPU": 1} if cluster.get("GPU", 0) >= workers else {"CPU": 1}


def lacking(each: Mapping[str, float], workers: int, cluster: Mapping[str, float]) -> str:
    """What the cluster has too little of, in words; nothing where it has enough."""
    return ", ".join(
        f"{workers} x {amount:g} {name} of {cluster.get(name, 0):g}"
        for name, amount in each.items()
        if amount * workers > cluster.get(name, 0)
    )


def timeout_of(call: Call) -> int:
    """How many seconds a worker waits for the others."""
    return int(call.config.get("ddp_timeout") or PATIENCE)


def versions() -> dict[str, str]:
    """What is installed here of the libraries that shape a result; and Python."""
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def as_worker(given: Mapping[str, Any]) -> None:
    """One worker's side: run the call, and tell of it. Raises RuntimeError where it failed: Ray ends the others."""
    rank, call = int(os.environ["RANK"]), given["call"]
    with (
        Client(given["address"], authkey=given["key"]) as events,
        tempfile.TemporaryDirectory(prefix="tunemill_worker_") as spare,
    ):
        events.send(rank)
        if fault := fault_of_machine(given):
            events.send(Failed(fault, of_user=True))
            raise RuntimeError(fault)
        if rank:
            folders = {name: f"{spare}/{name}" for name in ("data", "logs")}
            for folder in folders.values():
                Path(folder).mkdir()
            call = replace(call, workspace={**call.workspace, **folders})
        if not speak(call, events.send, given["request"], parts=False):
            raise RuntimeError("the body failed, which has been told")


def fault_of_machine(given: Mapping[str, Any]) -> str:
    """Why a worker's machine cannot carry out a call, if it cannot."""
    call, host = given["call"], socket.gethostname()
    folders = [call.workspace["data"], call.workspace["checkpoints"]]
    for _, paths in call.inputs.values():
        folders += [paths] if isinstance(paths, str) else paths or []
    for folder in folders:
        if not Path(folder).is_dir():
            return (
                f"the machine {host} of the Ray cluster has no {folder}: its workers read their inputs from the state "
                f"folder, and write into it. Put it (--state) on a disk that all machines share under the same path"
            )
    own = versions()
    for name, there in given["versions"].items():
        if own[name] != there:
            return (
                f"the machine {host} of the Ray cluster has {name} {own[name]}, and this one {there}, which is in the "
                f"key of the result. Install the same on both"
            )
    return ""


class Ears:
    """Hears the workers: a thread takes their connections, and one for each hears what comes.

    `address` and `key` are what a worker connects with.
    """

    def __init__(self, call: Call, sink: Sink, host: str, logs: Path) -> None:
        self.key = secrets.token_bytes(32)
        # Without the key: it would be asked for in the thread that takes connections, one after the other.
        self._server = Listener((host, 0), backlog=call.processes)
        self.address = self._server.address
        self.standings = [Standing() for _ in range(call.processes)]
        self._sink, self._logs = sink, logs
        self._secrets = secrets_in(call.config, os.environ)
        self._one_at_a_time = threading.Lock()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Ears":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()
        self._server.close()

    def verdict(self, words: str) -> dict[str, Any]:
        """The event that tells of a failure; `words` are Ray's, for one that no worker has told of."""
        self._wait()
        if all(one.failed_at is None for one in self.standings):
            return {"type": "crashed", "message": f"Ray: {words}", "again": machine_failed(words)}
        return verdict(self.standings, {}, partial(rank_log, self._logs))

    def _wait(self) -> None:
        """Until the workers have said their last words, or are given up on."""
        end = time.monotonic() + LAST_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _accept(self) -> None:
        while True:
            try:
                events = self._server.accept()
            except ConnectionError:
                # Gone again before it was taken.
                continue
            except OSError:
                return
            # Whoever connects and says nothing keeps nobody else waiting.
            threading.Thread(target=self._greet, args=(events,), daemon=True).start()

    def _greet(self, events: Connection) -> None:
        """Let a worker in. Who cannot say the key is none: somebody in the network who looks which ports are open."""
        try:
            deliver_challenge(events, self.key)
            answer_challenge(events, self.key)
            self._threads.append(threading.current_thread())
            rank = events.recv()
        except (AuthenticationError, OSError, EOFError, AssertionError):
            events.close()
            return
        self._hear(rank, events)

    def _hear(self, rank: int, events: Connection) -> None:
        standing = self.standings[rank]
        try:
            while True:
                said = events.recv()
                standing.heard_at = time.monotonic()
                with self._one_at_a_time:
                    hear(rank, standing, said, self._sink, partial(self._write, rank))
        except (EOFError, OSError):
            standing.end(time.monotonic())

    def _write(self, rank: int, text: str) -> None:
        with rank_log(self._logs, rank).open("a", encoding="utf-8") as file:
            file.write(redacted(text, self._secrets))
