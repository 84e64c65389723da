"""inspect-ai itself, in an environment of its own, asks a tiny model that this process serves."""

import json

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from support.inspect_tasks import write_task
from support.own_environment import python_with_inspect
from support.tiny_model import Heard, make_model, workspace

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.evaluation.inspect_task.config import InspectTaskConfig
from tunemill.stages.evaluation.inspect_task.task_files import files_behind
from tunemill.stages.models.chat.sampling import Sampling
from tunemill.stages.models.chat.speaker_body import answer, load_speaker, prompt_of


def config_of(folder, task, **settings):
    python, files = str(python_with_inspect()), files_behind(task, folder.parent)
    return InspectTaskConfig(task=task, task_files=files, inspect_python=python, inspect=settings)


def scored(folder, model, task, **settings):
    from tunemill.stages.evaluation.inspect_task.body import evaluate

    out, heard = workspace(folder), Heard()
    config = config_of(folder, task, **settings)
    assert not list(config.faults())
    evaluate(config, Model(model), None, out, heard.report)
    rows = [json.loads(line) for line in (out.data / "predictions.jsonl").read_text().splitlines()]
    read = [json.loads((out.data / f"{name}.json").read_text()) for name in ("metrics", "intervals")]
    return rows, *read


@pytest.mark.slow
def test_a_task_is_scored_and_kept_by_the_sample(tmp_path, monkeypatch):
    # Neither leads anywhere: a proxy, and what inspect-ai would find above the folder in which it runs.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    (tmp_path / ".env").write_text("INSPECT_EVAL_SAMPLE_ID=1\n")
    model = make_model(tmp_path / "model")
    write_task(tmp_path / "tasks")
    task = "tasks/task.py@sums"
    rows, metrics, intervals = scored(
        tmp_path / "out", model, task, limit=3, max_tokens=6, args={"instruction": "Add: "}
    )
    assert [row["prompt"] for row in rows] == [f"Add: {n} + {n}" for n in (1, 2, 3)]
    speaker = load_speaker(model)
    for row in rows:
        said = answer(
            speaker, prompt_of(speaker, [{"role": "user", "content": row["prompt"]}]), Sampling(max_new_tokens=6),
            lambda _: None,
        )  # fmt: skip
        assert (row["prediction"], row["tokens"], row["finish_reason"]) == (
            said.text, said.tokens, said.finish_reason,
        )  # fmt: skip
        assert row["includes"] is (row["reference"] in said.text) and row["lengths"] == len(said.text)
    assert metrics["lengths/mean"] == pytest.approx(sum(row["lengths"] for row in rows) / 3)
    assert set(metrics) == {"includes/accuracy", "lengths/mean"}
    assert intervals["includes/accuracy"]["values"] == "includes"
    assert (tmp_path / "out" / "logs" / "inspect").is_dir()
    with pytest.raises(UserError, match="no rows on Sundays"):
        scored(tmp_path / "broken", model, "tasks/task.py@broken")


@pytest.mark.slow
def test_a_server_that_fails_is_not_asked_without_end(tmp_path):
    from tunemill.stages.evaluation.inspect_task.body import run, serving

    async def fail(_):
        return JSONResponse({"error": {"message": "boiled over"}}, 500)

    write_task(tmp_path / "tasks")
    app = Starlette(routes=[Route("/v1/chat/completions", fail, methods=["POST"])])
    app.state.cancels = ()
    out = workspace(tmp_path / "out")
    with serving(app) as url, pytest.raises(UserError, match="raised InternalServerError"):
        run(config_of(tmp_path / "out", "tasks/task.py@sums", limit=1), url, out)
