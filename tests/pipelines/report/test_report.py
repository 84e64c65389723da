"""The report of a run: what it tells, that nothing in it can act, and what a browser makes of it."""

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import dagster as dg
import pytest
from support.browser import browser
from support.project import chat_row, look_with_figures

from tunemill.pipelines.assets.folder import build_definitions
from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.report.page import page as page_of
from tunemill.pipelines.report.parts import parts_of
from tunemill.pipelines.report.write import keep_report, write_report
from tunemill.pipelines.run.look import look
from tunemill.pipelines.run.record import last_report, latest_records
from tunemill.resources.launcher import in_this_process

SCRIPT = "<script>document.title = 'taken'; fetch('http://127.0.0.1:9/')</script><img src=x onerror=alert(1)>"
LARGEST = 2_000_000


def test_the_command_writes_beside_the_record_of_the_run_or_where_it_is_told(project, capsys):
    state = ["--state", str(project.state)]
    assert main(["report", str(project.yaml), *state]) == 0
    (record,) = latest_records(project.store, "pipeline")
    assert capsys.readouterr().out == f"report: {record.report}\n"
    assert last_report(project.store, "pipeline") == record.report
    elsewhere = project.folder / "pages" / "r.html"
    assert main(["report", str(project.yaml), *state, "--html", str(elsewhere), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"pipeline": "pipeline", "report": str(elsewhere)}
    text = elsewhere.read_text()
    assert text == record.report.read_text() and len(text) < LARGEST
    for words in (
        "18 nodes computed in",
        "evaluation_of_quantized",
        "Rows by dataset",
        "max_abs_logit",
        "Training loss",
    ):
        assert words in text, words
    assert main(["report", str(project.yaml), *state, "--html", "/proc/no/r.html"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_texts_are_escaped_and_secrets_hidden(project):
    lines = [f"# {SCRIPT}", "# https://somebody:letmein99@host.example/rows?token=abcdef123456"]
    project.yaml.write_text("\n".join([*lines, project.yaml.read_text()]))
    given = ["num_epochs=2", "use_comet=true", "--comet_api_key=letmein77"]
    text = write_report(load_pipeline(project.yaml, given), project.store).read_text()
    assert "with num_epochs=2, use_comet=true, --comet_api_key=***</p>" in text
    assert "<script" not in text and "<img src=x" not in text and "&lt;script&gt;document.title" in text
    assert "letmein99" not in text and "letmein77" not in text and "abcdef123456" not in text


def test_a_report_that_cannot_be_written_fails_nobody_and_one_without_a_run_says_so(project):
    (record,) = latest_records(project.store, "pipeline")
    record.report.mkdir()
    keep_report(load_pipeline(project.yaml), project.store)
    assert last_report(project.store, "pipeline") is None
    record.file.unlink()
    page = write_report(load_pipeline(project.yaml), project.store, project.folder / "r.html").read_text()
    assert "No run of this version is on record." in page and "as it stands now" in page


def test_checks_that_failed_are_told_with_what_to_do(project):
    found = look_with_figures(project, "trained", changed_weights_share=0.0)
    (failed,) = found.failed_checks
    text = page_of(parts_of(found, project.store, None))
    row = unescape(text).partition("Checks that failed")[2].partition("</table>")[0]
    assert f'<td class="bad">error</td><td>trained</td><td>{failed.check}</td>' in row
    assert failed.text in row and failed.advice in row


@pytest.mark.parametrize("state, shown", [
    ("passed", '<b class="good">2 passed'), ("not known", '<b class="dim">1 not known'),
    ("cannot tell", '<b class="warn">1 cannot tell'), ("failed", '<b class="bad">1 failed'),
])  # fmt: skip
def test_the_tile_of_the_gates_tells_the_worst_of_them(project, state, shown):
    seen = look(load_pipeline(project.yaml), project.store)
    gates = [{"gate": "loss", "state": one, "text": "why"} for one in ("passed", state)]
    told = page_of(parts_of(replace(seen, excerpts=replace(seen.excerpts, gates=gates)), project.store, None))
    assert f"{shown}</b><span>of 2 gates</span>" in told


def test_what_the_ui_runs_writes_a_report_too_and_says_where(project):
    definitions = build_definitions(project.folder, project.state, in_this_process)
    job = definitions.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        key = dg.AssetKey(["pipeline", "leakage"])
        outcome = job.execute_in_process(instance=instance, asset_selection=[key])
    (event,) = outcome.get_asset_materialization_events()
    record = next(latest_records(project.store, "pipeline"))
    assert (record.run, record.nodes["leakage"].state) == (outcome.run_id, "cached")
    assert event.materialization.metadata["report"].value == str(record.report)
    text = record.report.read_text()
    assert "saved by 1 cached node" in text and text.count('class="box box-cached"') == 18


@pytest.mark.slow
def test_a_browser_shows_it_without_network_script_or_error(project):
    rows = [chat_row(f"say {SCRIPT} {word}", SCRIPT[:10] + word) for word in "abcd"]
    (project.folder / "data" / "echoes.jsonl").write_text("".join(rows))
    (project.folder / "data" / "held_out.jsonl").write_text("".join(rows))
    project.edit(learning_rate=0.01, max_steps=8, pipeline={"gates": [
        {"metric": "exact_match", "of": "base", "min": 0.9, "cannot_tell": "pass"}]})  # fmt: skip
    finished = project.run()
    assert finished["trained"].state == "computed", finished["trained"].message
    file = write_report(load_pipeline(project.yaml), project.store)
    assert file.stat().st_size < LARGEST
    for dark in (False, True):
        with browser(dark=dark) as opened:
            page = opened.page
            page.goto(file.as_uri())
            assert page.title() == "pipeline: report"
            check_dom(page)
            back = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (back == "rgb(255, 255, 255)") is not dark
            assert opened.errors == [] and opened.requests == [file.as_uri()]
            assert len(page.pdf(format="A4")) > 10_000
    with browser(scripts=False) as opened:
        opened.page.goto(file.as_uri())
        assert opened.page.locator("h2").first.inner_text() == "Scores"


def check_dom(page):
    titles = page.locator("h2").all_inner_texts()
    assert [re.sub(r":.*", "", one) for one in titles] == [
        "Scores", "What changed since the time before", "The graph, and what caching saved", "Training",
        "Answers of quantized", "Rows that moved", "Data", "Models and their proofs", "Environment", "The YAML",
        "Digests",
    ]  # fmt: skip
    assert page.locator("nav a").count() == 10
    models = page.locator("h2#scored ~ .wide").first.locator("tbody tr td:first-child").all_inner_texts()
    assert models == ["base", "trained", "merged", "quantized"]
    boxes = page.locator("svg.graph g.box")
    assert boxes.count() == 18
    assert page.locator("g.box-computed text").first.text_content()
    assert page.locator("g.box-cached").count() >= 3
    assert "learning_rate 0.001 -> 0.01" in page.locator("ul").first.inner_text()
    assert page.locator(".tokens .trained", has_text="<script>do").count() >= 1
    assert page.locator("td.bad", has_text="failed").count() == 1
    assert page.evaluate("document.scripts.length + document.images.length") == 0
    # Nothing is wider than the window.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_run_prints_where_its_report_is(project, capsys):
    again = ["run", str(project.yaml), "--state", str(project.state)]
    assert main(again) == 0
    assert "report:" not in capsys.readouterr().out, "nothing ran, and none was written before"
    keep_report(load_pipeline(project.yaml), project.store)
    assert main([*again, "--json"]) == 0
    assert Path(json.loads(capsys.readouterr().out)["report"]).is_file()
