"""Scores one model on a task of inspect-ai, which asks it through OpenAI's protocol, and keeps what it said."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import getproxies_environment

import uvicorn

from tunemill.resources.protocols import THIS_MACHINE
from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.evaluation.inspect_task.config import InspectTaskConfig
from tunemill.stages.evaluation.inspect_task.samples import means_of, metrics_of, predictions_of
from tunemill.stages.evaluation.written import Mean, write_scores
from tunemill.stages.evaluation.wrong_answers import show_wrong
from tunemill.stages.models.chat.sampling import Sampling
from tunemill.stages.models.chat.server_body import Server, make_app
from tunemill.stages.models.chat.speaker_body import load_speaker
from tunemill.stages.models.guarded import guarded, program_of
from tunemill.stages.report import Report, Workspace

# What the server calls the model.
SERVED = "evaluated"
LOG, LOGS = "inspect.log", "inspect"
BACKLOG = 64
# inspect-ai asks a server that fails again without end.
RETRIES = 2
# In lines, of what is shown where inspect-ai ends without a log.
TAIL = 12


def evaluate(
    config: InspectTaskConfig, model: Model, adapter: Adapter | None, out: Workspace, report: Report
) -> None:
    """Write metrics.json, intervals.json and predictions.jsonl. Raises UserError for a task that cannot be run."""
    settings = config.inspect
    usual = (
        Sampling(seed=settings.seed)
        if settings.max_tokens is None
        else Sampling(seed=settings.seed, max_new_tokens=settings.max_tokens)
    )
    speaker = load_speaker(model.path, None if adapter is None else adapter.path)
    if not speaker.chats:
        raise SettingError(
            "task: inspect-ai asks by messages, and the model has no chat template. Set chat_template"
        )
    with serving(make_app(speaker, SERVED, usual)) as url:
        log = run(config, url, out)
    task = str(log["eval"]["task"])
    metrics, predictions = metrics_of(log), list(predictions_of(log, task))
    if not metrics:
        raise UserError(f"{config.file}: the task {task} has scored nothing. Give it a scorer with a metric")
    means = means_of(metrics, predictions)
    write_scores(metrics, predictions, {name: Mean(field) for name, field in means.items()}, out.data, report)
    show_wrong(predictions, list(dict.fromkeys(means.values())), report)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """A server on a free port of this machine, to the end of the block; its URL."""
    with socket.socket() as taken:
        taken.bind((THIS_MACHINE, 0))
        taken.listen(BACKLOG)
        server = Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        try:
            yield f"http://{THIS_MACHINE}:{taken.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


def run(config: InspectTaskConfig, url: str, out: Workspace) -> Mapping[str, Any]:
    """The log of inspect-ai. Raises UserError where it has no scores."""
    kept = out.logs / LOGS
    arguments = out.checkpoints / "arguments.json"
    arguments.write_text(json.dumps(config.inspect.args))
    # inspect-ai takes settings of its own from the first such file that it finds from here upwards.
    (out.checkpoints / ".env").touch()
    name = str(config.file) if config.function is None else f"{config.file}@{config.function}"
    environment = {"INSPECT_DISPLAY": "plain", "no_proxy": _reached_directly()}
    command = [*program_of(config.inspect_python, "inspect_ai", environment), "eval", name]
    command += options_of(config, url, arguments if config.inspect.args else None, kept)
    output = out.logs / LOG
    with guarded(command, folder=out.checkpoints, log=output) as process:
        process.wait()
    found = sorted(kept.glob("*.json"))
    if not found:
        said = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-TAIL:]
        raise UserError(
            "\n".join([f"{config.file}: inspect-ai ended before it began. The end of {output}:", *said])
        )
    log: Mapping[str, Any] = json.loads(found[-1].read_text(encoding="utf-8"))
    if log["status"] != "success":
        reason = (log.get("error") or {}).get("message", f"it was {log['status']}")
        raise UserError(
            f"{config.file}: {' '.join(str(reason).split())}. All that inspect-ai said is in {output}"
        )
    return log


def _reached_directly() -> str:
    """The places to which no proxy leads: this machine, beside those that the environment names."""
    others = getproxies_environment().get("no")
    return others if others == "*" else ",".join(filter(None, (others, THIS_MACHINE)))


def options_of(config: InspectTaskConfig, url: str, arguments: Path | None, kept: Path) -> list[str]:
    """What follows the name of the task."""
    settings = config.inspect
    given = {
        "--limit": settings.limit,
        "--max-tokens": settings.max_tokens,
        "--temperature": settings.temperature,
        "--top-p": settings.top_p,
        "--system-message": settings.system_message,
        "--task-config": arguments,
        "--model": f"openai-api/tunemill/{SERVED}",
        "--model-base-url": url,
        "-M": "api_key=not-needed",
        "--log-dir": kept,
        "--log-format": "json",
        # The server answers one question at a time, and the same way each time.
        "--max-connections": 1,
        "--max-retries": RETRIES,
        "--epochs": 1,
        "--ctl-server": "false",
    }
    return [word for option, value in given.items() if value is not None for word in (option, str(value))]
