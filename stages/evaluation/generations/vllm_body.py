"""Answers of vLLM: by a server that is started for them and ended with them, or by one that runs already."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoConfig

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.engine_keys import VllmEngine
from tunemill.stages.evaluation.generations.config import GenerationsConfig
from tunemill.stages.evaluation.generations.proof_body import prove_served
from tunemill.stages.evaluation.questions import Question
from tunemill.stages.evaluation.sampling_keys import Sampling, seed_of
from tunemill.stages.models.gguf_loading_body import gguf_of
from tunemill.stages.models.vllm.adapter import beside_base
from tunemill.stages.models.vllm.client_body import Client, client_of
from tunemill.stages.models.vllm.installed import version_at
from tunemill.stages.models.vllm.started import LOG, started
from tunemill.stages.report import Report, Workspace

INSTEAD = "Name the merged model: on: [merged]"
# Said each time: a server has settings of its own for what is not.
PLAIN = {
    "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "ignore_eos": True,
}  # fmt: skip
# Types that vLLM would not keep by itself, or names otherwise.
TYPES = frozenset({"float32", "float16", "bfloat16"})


def answer_by_vllm(
    config: GenerationsConfig,
    model: Model,
    adapter: Adapter | None,
    questions: Sequence[Question],
    out: Workspace,
    report: Report,
) -> dict[int, list[int]]:
    """Row number -> the ids that vLLM generates, as the question cuts them. Raises SettingError."""
    assert config.vllm is not None, "asked only where vLLM is the engine"
    if gguf_of(model.path) is not None:
        raise SettingError(
            "engine: vllm is not asked for GGUF files here. Take engine out, or the file out of `on`"
        )
    needed = max(len(one.prompt) + one.limit(config.longest) for one in questions)
    if config.vllm.url is not None:
        client = _given(config.vllm, model, adapter, questions, needed, report)
        return _answers(client, config, questions, None, report)
    room = _room(model, questions)
    longest = needed if room is None else min(needed, room)
    with own_server(config, model, adapter, longest, out, report) as client:
        return _answers(client, config, questions, longest, report)


def _room(model: Model, questions: Sequence[Question]) -> int | None:
    """Tokens that vLLM gives a place to. Raises SettingError where a prompt has more."""
    stated = getattr(
        AutoConfig.from_pretrained(model.path).get_text_config(), "max_position_embeddings", None
    )
    if not isinstance(stated, int) or stated <= 0:
        return None
    longest = max(len(question.prompt) for question in questions)
    if longest >= stated:
        raise SettingError(
            f"engine: vllm: the longest prompt has {longest} tokens, and the model was made for {stated} "
            f"(max_position_embeddings), which vLLM does not go beyond. Drop the long rows, or take engine out"
        )
    return stated


@contextmanager
def own_server(
    config: GenerationsConfig,
    model: Model,
    adapter: Adapter | None,
    longest: int,
    out: Workspace,
    report: Report,
) -> Iterator[Client]:
    """A server that is started with the model, of a name that no other has, for `longest` tokens at most."""
    assert config.vllm is not None
    name = f"tunemill-{secrets.token_hex(8)}"
    arguments = arguments_of(config.vllm, name, model, adapter, longest)
    report.log("vLLM is started")
    with started(
        arguments,
        name,
        python=config.vllm_python,
        folder=out.checkpoints,
        log=out.logs / LOG,
        seconds=config.vllm.start_seconds,
    ) as server:
        yield client_of(server.url, name, server)


def arguments_of(
    engine: VllmEngine, name: str, model: Model, adapter: Adapter | None, longest: int
) -> list[str]:
    """What follows `vllm serve`, but where it listens."""
    words = [str(model.path), "--served-model-name", name if adapter is None else f"base-of-{name}"]
    words += ["--dtype", engine.dtype or _type_of(model), "--max-model-len", str(longest), "--seed", "0"]
    # Neither the model's own settings for answers nor what another prompt has left behind counts.
    words += ["--generation-config", "vllm", "--no-enable-prefix-caching"]
    if engine.tensor_parallel_size is not None:
        words += ["--tensor-parallel-size", str(engine.tensor_parallel_size)]
    if engine.gpu_memory_utilization is not None:
        words += ["--gpu-memory-utilization", str(engine.gpu_memory_utilization)]
    if engine.enforce_eager or (engine.enforce_eager is None and not torch.cuda.is_available()):
        words.append("--enforce-eager")
    return [*words, *([] if adapter is None else beside_base(name, adapter.path, INSTEAD))]


def _type_of(model: Model) -> str:
    """The type of the weights, which vLLM would round from float32 by itself; its own choice for quantized ones."""
    stored = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
    named = str(stored.get("dtype") or stored.get("torch_dtype"))
    return named if named in TYPES and "quantization_config" not in stored else "auto"


def _given(
    engine: VllmEngine,
    model: Model,
    adapter: Adapter | None,
    questions: Sequence[Question],
    needed: int,
    report: Report,
) -> Client:
    """Who asks a server that runs already, proven to have this model."""
    assert engine.url is not None
    version = version_at(engine.url)
    if engine.version not in (None, version):
        raise SettingError(
            f"engine: {engine.url} is vLLM {version}, and version says {engine.version}. Write that, or leave it out"
        )
    client = client_of(engine.url, engine.model or "")
    served = client.models()
    if engine.model is None and len(served) != 1:
        raise SettingError(
            f"engine: {engine.url} serves {', '.join(served) or 'no model'}. Say which with `model`"
        )
    name = engine.model or next(iter(served))
    if name not in served:
        raise SettingError(f"engine: {engine.url} serves no model {name}, but {', '.join(served)}")
    room = served[name].get("max_model_len")
    if isinstance(room, int) and room < needed:
        raise SettingError(
            f"engine: {engine.url} takes {room} tokens of prompt and answer together, and {needed} may be needed. "
            f"Start it with --max-model-len {needed} or more, or set max_new_tokens"
        )
    client = replace(client, model=name)
    prove_served(client, model, adapter, questions, needed, report)
    return client


def _answers(
    client: Client,
    config: GenerationsConfig,
    questions: Sequence[Question],
    longest: int | None,
    report: Report,
) -> dict[int, list[int]]:
    """The answers, a number of requests at a time."""

    def ask(question: Question) -> tuple[int, list[int]]:
        limit = question.limit(config.longest)
        room = limit if longest is None else min(limit, longest - len(question.prompt))
        reply = client.complete(question.prompt, **request_of(question, room, config.sampling))
        return question.row, question.cut(reply["token_ids"], config.longest)

    return dict(_at_once(ask, questions, config.rows_at_once, report))


def request_of(question: Question, room: int, sampling: Sampling | None) -> Mapping[str, Any]:
    """How one question is answered: by the likeliest tokens, or drawn with a seed that is its own."""
    asked = {**PLAIN, "max_tokens": room, "stop_token_ids": sorted(question.stops), "temperature": 0.0}
    if sampling is None:
        return asked
    return {
        **asked,
        "temperature": sampling.temperature,
        "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
        "top_k": sampling.top_k or 0,
        "seed": seed_of(sampling.seed, question.row),
    }


def _at_once(
    ask: Callable[[Question], tuple[int, list[int]]],
    questions: Sequence[Question],
    count: int,
    report: Report,
) -> Iterator[tuple[int, list[int]]]:
    with ThreadPoolExecutor(min(count, len(questions))) as pool:
        waiting = [pool.submit(ask, question) for question in questions]
        try:
            for done, future in enumerate(waiting, 1):
                yield future.result()
                report.progress(done, len(questions), "rows")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
