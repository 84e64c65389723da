"""vLLM as what samples: a server that is started for the training or runs already, given the weights as they change.

An adapter is written to a folder and loaded beside the base, each time by a name that the server has not heard before.
Whole weights are written to a folder that the server reads them from. The server therefore sees the same files as the
training. What came of it is proven by `stages/training/online/sync_gate.py` each time.
"""

import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError
from tunemill.stages.models.adapter_folder import ADAPTER_CONFIG
from tunemill.stages.models.vllm.adapter import adapter_room
from tunemill.stages.models.vllm.apart import LogP
from tunemill.stages.models.vllm.client_body import Client, client_of
from tunemill.stages.models.vllm.control_body import (
    TAKES_ADAPTERS,
    TAKES_WEIGHTS,
    load_adapter,
    load_weights,
    unload_adapter,
)
from tunemill.stages.models.vllm.log_p_body import OF_FLOAT32, OF_HALF, own_log_p, served_log_p
from tunemill.stages.models.vllm.started import LOG, Keys, started
from tunemill.stages.models.wrapped_body import uncompiled
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.online.engine import Completion, SamplingSettings
from tunemill.stages.training.online.sync_gate import BASE, PREVIOUS, Gate, judge
from tunemill.stages.training.online.vllm_keys import VllmKeys

# Requests at a time: vLLM makes batches of them by itself.
REQUESTS = 64
# Of the probe: rows, and tokens of each.
ROWS, TOKENS = 8, 64
ADAPTER, WEIGHTS = "adapter", "weights"
KEYS = Keys("trl.vllm_server_timeout", "trl.vllm_gpu_memory_utilization")


@dataclass
class VllmEngine:
    """Samples of what the server was last given. `ends`: the tokens that end a completion.

    `folder` is where weights are written for the server, `probe` what it is asked to prove that it has them.
    """

    client: Client
    model: Any
    folder: Path
    probe: Sequence[Sequence[int]]
    ends: frozenset[int]
    interval: int
    report: Report
    policy: str = ""
    gate: Gate | None = None
    in_float32: bool = False
    """Whether the server computes in float32; that of one that runs already is not known."""
    known: dict[str, LogP] = field(default_factory=dict)
    """What the base says of the probe, and what the weights said that were given before."""

    @property
    def what(self) -> str:
        """What the server is given: an adapter beside its base, or whole weights."""
        return ADAPTER if hasattr(self.model, "peft_config") else WEIGHTS

    def sync(self, policy: str, step: int) -> None:
        """Give the server the weights, where it is time to, and prove that it has them.

        Raises UserError where it has others, SettingError where it takes none.
        """
        if policy == self.policy or (self.gate and step < self.gate.step + self.interval):
            return
        own = self._own()
        if self.gate is None:
            self.known[BASE] = self._base(own)
        folder = self._written(policy)
        if self.what == ADAPTER:
            self._load_adapter(folder, policy)
        else:
            load_weights(self.client, folder)
        served = [served_log_p(self.client, row) for row in self.probe]
        self.gate = judge(
            step,
            served,
            own,
            self.known,
            self._allowed(),
            what=self.what,
            where=f"vLLM at {self.client.url}",
        )
        shutil.rmtree(folder)
        if not self.policy:
            self.report.log(
                f"vLLM has the {self.what}: log-probabilities of {sum(map(len, own))} tokens are "
                f"{self.gate.apart:.2g} nats from the trainer's; this is asked after every sync"
            )
        self.known[PREVIOUS] = own
        self.policy = policy

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: SamplingSettings
    ) -> list[Completion]:
        """A completion of each prompt, each by a request and a seed of its own.

        One seed for several completions of a prompt would make them equal.
        """
        with ThreadPoolExecutor(min(REQUESTS, len(prompts))) as pool:
            return list(pool.map(lambda prompt, seed: self._sampled(prompt, seed, sampling), prompts, seeds))

    def close(self) -> None:
        """The server is ended by who started it; what was written for it goes."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sampled(self, prompt: Sequence[int], seed: int, sampling: SamplingSettings) -> Completion:
        asked = {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p or 1.0,
            "top_k": sampling.top_k or 0,
            "min_p": sampling.min_p or 0.0,
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop_token_ids": sorted(self.ends),
            "ignore_eos": True,
            "seed": seed,
            "logprobs": 0,
        }
        reply = self.client.complete(prompt, **asked)
        ids, reason = reply["token_ids"], reply.get("finish_reason")
        told = (reply.get("logprobs") or {}).get("token_logprobs") or []
        if len(told) != len(ids) or any(one is None for one in told):
            raise SettingError(
                f"engine: {self.client.url}: tells {len(told)} log-probabilities of {len(ids)} sampled tokens, and "
                f"without them nothing can be corrected. Does the server allow them (--max-logprobs)?"
            )
        if reason not in ("stop", "length") or not ids:
            raise SettingError(
                f"engine: {self.client.url}: a completion ended by {reason!r} after {len(ids)} tokens"
            )
        return Completion(tuple(ids), tuple(map(float, told)), reason, seed, self.policy)

    def _own(self) -> LogP:
        plain = uncompiled(self.model)
        was_training = plain.training
        plain.eval()
        try:
            return [own_log_p(plain, row) for row in self.probe]
        finally:
            plain.train(was_training)

    def _base(self, own: LogP) -> LogP:
        if self.what == WEIGHTS:
            return own
        with uncompiled(self.model).disable_adapter():
            return self._own()

    def _written(self, policy: str) -> Path:
        """The weights as files, which are new to the server."""
        folder = self.folder / f"{self.what}-{policy}-{secrets.token_hex(2)}"
        uncompiled(self.model).save_pretrained(folder)
        return folder

    def _load_adapter(self, folder: Path, policy: str) -> None:
        before = self.client.model
        name = f"policy-{policy}-{secrets.token_hex(4)}"
        load_adapter(self.client, name, folder)
        self.client = replace(self.client, model=name)
        if self.policy:
            unload_adapter(self.client, before)

    def _allowed(self) -> float:
        types = {parameter.dtype for parameter in self.model.parameters()}
        return OF_FLOAT32 if types == {torch.float32} and self.in_float32 else OF_HALF


@contextmanager
def vllm_engine(
    config: VllmKeys,
    model: Any,
    base: Model,
    probe: Sequence[Sequence[int]],
    ends: frozenset[int],
    longest: int,
    out: Workspace,
    report: Report,
) -> Iterator[VllmEngine]:
    """An engine, until the block ends. `model` is trained, of the folder `base`; the `probe` is rows of tokens.

    `longest`: tokens of a prompt and its completion at most. Raises SettingError where there is no server.
    """
    folder = out.checkpoints / "for_vllm"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # Of a first token nothing is said.
    rows = [list(row[:TOKENS]) if len(row) > 1 else [*row, *row] for row in probe[:ROWS]]
    url = config.vllm_url
    if url is not None:
        client = _given(url)
        yield VllmEngine(client, model, folder, rows, ends, config.sync_interval, report)
        return
    name = f"tunemill-{secrets.token_hex(8)}"
    dtype = config.vllm_dtype or _type_of(base)
    words = arguments_of(config, name, base, dtype, longest)
    adapters = hasattr(model, "peft_config")
    if adapters:
        rank = _room(model, folder)
        words += ["--enable-lora", "--max-lora-rank", str(rank)]
    report.log(f"vLLM is started{beside(config)}")
    with started(
        words,
        name,
        python=config.vllm_python,
        folder=out.checkpoints,
        log=out.logs / LOG,
        seconds=config.vllm_server_timeout,
        environment=TAKES_ADAPTERS if adapters else TAKES_WEIGHTS,
        keys=KEYS,
    ) as server:
        engine = VllmEngine(
            client_of(server.url, name, server),
            model,
            folder,
            rows,
            ends,
            config.sync_interval,
            report,
        )
        engine.in_float32 = dtype == "float32"
        yield engine


def beside(config: VllmKeys) -> str:
    """Where a server is that shares the device that trains, in words; nothing of another one."""
    if not config.is_colocated:
        return ""
    share = f"{config.vllm_share:.0%}"
    if not torch.cuda.is_available():
        return f" beside the training: there is no GPU of which it would take {share}"
    return f" beside the training, on the same GPU, of whose memory it takes {share}"


def _given(url: str) -> Client:
    """A server that runs already, and its one base. Raises SettingError where none answers."""
    client = client_of(url, "")
    bases = [name for name, said in client.models().items() if not said.get("parent")]
    if len(bases) != 1:
        raise SettingError(
            f"engine: {url} serves {', '.join(bases) or 'no model'}. Start it with the base_model alone"
        )
    return replace(client, model=bases[0])


def arguments_of(config: VllmKeys, name: str, base: Model, dtype: str, longest: int) -> list[str]:
    """What follows `vllm serve`, but where it listens."""
    room = config.room_for(longest)
    words = [str(base.path), "--served-model-name", name, "--dtype", dtype, "--max-model-len", str(room)]
    # Neither the model's own settings count, nor what other weights have left; what is told is what was drawn from.
    words += ["--seed", "0", "--generation-config", "vllm", "--no-enable-prefix-caching"]
    words += ["--logprobs-mode", "processed_logprobs"]
    if config.vllm_share is not None:
        words += ["--gpu-memory-utilization", str(config.vllm_share)]
    if config.vllm_gpus > 1:
        words += ["--tensor-parallel-size", str(config.vllm_gpus)]
    return words if torch.cuda.is_available() else [*words, "--enforce-eager"]


def _type_of(base: Model) -> str:
    stored = json.loads((base.path / "config.json").read_text(encoding="utf-8"))
    named = str(stored.get("dtype") or stored.get("torch_dtype"))
    return named if named in ("float32", "float16", "bfloat16") else "auto"


def _room(model: Any, folder: Path) -> int:
    """The rank that the server must have room for. Raises SettingError for an adapter that vLLM cannot take."""
    settings = folder / "settings"
    settings.mkdir()
    for one in uncompiled(model).peft_config.values():
        one.save_pretrained(settings)
    assert (settings / ADAPTER_CONFIG).is_file()
    found = adapter_room(settings, "Take trl.use_vllm out")
    shutil.rmtree(settings)
    return found
