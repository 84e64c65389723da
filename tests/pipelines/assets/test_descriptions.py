"""What pages of Dagster say of nodes and pipelines when definitions load."""

import json
import shutil

import dagster as dg
import pytest
from support.project import chat_row, look_with_figures

from tunemill.pipelines.assets.descriptions import description
from tunemill.pipelines.assets.folder import build_definitions
from tunemill.pipelines.assets.instance import open_instance
from tunemill.pipelines.assets.markdown import page_of, plain
from tunemill.pipelines.assets.one_asset import OUTPUT
from tunemill.pipelines.assets.summary import summary
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.standing import standing
from tunemill.pipelines.run.look import look
from tunemill.pipelines.run.record import KEPT, Done, forget_old, latest_records, record, report_place
from tunemill.resources.launcher import in_this_process


def seen(project):
    return look(load_pipeline(project.yaml), project.store)


def described(found, node):
    return description(found, found.pipeline.node(node))


def test_a_finished_pipeline_shows_scores_curves_answers_and_what_they_cost(project):
    found = seen(project)
    assert "![loss](data:image/svg+xml;base64," in described(found, "trained")
    assert "20 rows" in described(found, "dataset_sums").splitlines()[0], "the graph shows the first line"
    evaluation = described(found, "evaluation_of_merged")
    assert "| **0** | 0 to 0.49 (95%) |" in evaluation
    assert "| wrong | 0 + 7 | 7 |" in evaluation
    page = summary(found)
    assert page.startswith("**Up to date**")
    assert [page.index(f"\n| {model} | ") for model in ("base", "trained", "merged", "quantized")]
    assert page.index("### Scores") < page.index("### Loss") < page.index("### Models and data")
    assert "18 nodes" in page.partition("What it cost")[2]


def test_after_an_edit_each_page_says_why_in_the_words_of_plan(project):
    project.edit(learning_rate=0.005)
    found = seen(project)
    (why,) = project.plan()["trained"].reasons
    assert why == "learning_rate 0.001 -> 0.005"
    assert described(found, "trained").startswith(f"**Will be computed:** `{why}`")
    behind = [node.name for node in found.pipeline.nodes if "computed as well" in described(found, node.name)]
    assert behind == [
        name for name, item in project.plan().items() if item.state == "run" and name != "trained"
    ]
    assert all(f"behind trained (`{why}`)" in described(found, name) for name in behind)
    assert summary(found).startswith("**6 nodes will be computed**, because of trained: `learning_rate")
    assert "| merged (from before) |" in summary(found)


def test_after_the_run_the_summary_says_what_changed_and_what_caching_saved(project):
    (project.folder / "data" / "held_out.jsonl").write_text(chat_row("1 + 1", "2") * 3)
    project.edit(pipeline={"evaluate": ["base"]})
    project.run()
    page = summary(seen(project))
    changed = page.partition("### What changed")[2].partition("###")[0]
    assert "dataset_held_out: `path: the contents of" in changed
    assert "eval_loss of base: " in changed
    assert "exact_match before" in page
    assert "nodes cached, which saved **" in page
    last = next(latest_records(project.store, "pipeline"))
    assert last.nodes["evaluation_of_base"].reasons and last.nodes["trained"].state == "cached"


def test_what_failed_in_the_last_run_stands_first(project):
    shutil.rmtree(project.folder / "model")
    project.edit(base_model="model", seed=7)
    text = summary(seen(project))
    assert text.startswith("**Cannot be planned:**") and "model" in text.splitlines()[0]
    record(project.store, "pipeline", "a-run", {"merged": Done("failed", 0.1, message="no *disk*\nmore")})
    assert "❌ merged failed in the last run:** no \\*disk\\*" in summary(seen(project))


def test_a_server_that_does_not_answer_takes_no_pipeline_down(project):
    engine = {"kind": "vllm", "url": "http://127.0.0.1:9", "model": "m"}
    project.edit(pipeline={"evaluations": [{"name": "asked", "on": ["base"], "engine": engine}]})
    why = "does not tell which vLLM answers"
    assert why in summary(seen(project)) and why in standing(project.yaml, "pipeline", project.store).problem
    build_definitions(project.folder, project.state, in_this_process)


def test_checks_that_failed_say_what_to_do_errors_first(project):
    assert "### Checks that failed" not in summary(seen(project))
    falls = {"steps": 100, "loss_at_start": 1.0, "loss_at_end": 9.0, "loss_change_error": 0.1}
    text = summary(look_with_figures(project, "trained", changed_weights_share=0.0, **falls))
    error, *warnings = (
        text.partition("### Checks that failed")[2].partition("###")[0].strip().splitlines()[2:]
    )
    assert error.startswith("| ❌ error | trained | weights_have_changed | 0.0% of ")
    assert any(line.startswith("| ⚠️ warning | trained | loss_falls | ") for line in warnings)
    assert all(len(line.split(" | ")[-1]) > 30 for line in (error, *warnings)), "what to do"


def test_an_excerpt_that_was_changed_or_is_of_another_artifact_is_made_again(project):
    before = seen(project).excerpts
    (kept,) = (project.state / "excerpts").iterdir()
    seal, _, text = kept.read_bytes().partition(b"\n")
    kept.write_bytes(seal + b"\n" + text.replace(b'"0.49', b'"0.94').replace(b"1 + 7", b"9 + 9"))
    assert seen(project).excerpts == before, "not what it was sealed with"
    assert b"9 + 9" not in kept.read_bytes()
    assert all(artifact.digest in kept.read_text() for name, artifact in seen(project).artifacts.items()
               if name.startswith("evaluation_of"))  # fmt: skip


def test_texts_of_rows_are_no_markup():
    assert plain("<img src=x> *a* |b| `c` d_e _f_\n# g") == (
        "&lt;img src=x&gt; \\*a\\* \\|b\\| \\`c\\` d_e \\_f\\_ \\# g"
    )


def test_a_name_that_is_no_text_is_shown():
    assert page_of(["a \udcff", "", "b"]) == "a \\udcff\n\nb"


def test_only_the_last_records_are_kept_and_damaged_ones_are_none(tmp_path, finished_project):
    store = type(finished_project.store)(tmp_path)
    for number in range(KEPT + 3):
        record(store, "p", f"{number:08d}", {"node": Done("computed", 1.0)}).report.write_text("a page")
    # What earlier versions left behind, and how it stands without a run.
    for page in (tmp_path / "runs" / "p" / "20260101T000000-.html", report_place(store, "p", None)):
        page.write_text("a page")
    forget_old(store, "p")
    files = sorted((tmp_path / "runs" / "p").glob("*.json"))
    pages = {file.with_suffix(".html") for file in files}
    assert len(files) == KEPT
    assert {*(tmp_path / "runs" / "p").glob("*.html")} == pages | {report_place(store, "p", None)}
    files[-1].write_text("[]")
    files[-2].write_text(json.dumps({"run": "x", "started": "y", "nodes": {"a": {"unknown": 1}}}))
    assert len(list(latest_records(store, "p"))) == KEPT - 2


def test_a_run_has_the_pipelines_name_and_says_each_figure_once(project):
    with open_instance(project.state) as instance:
        (run,) = instance.get_runs()
        assert run.job_name == "pipeline_bring_up_to_date"
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    # A stage's checks are outputs of its step, too.
    outputs = [
        one
        for one in events
        if one.event_type == dg.DagsterEventType.STEP_OUTPUT and one.step_output_data.output_name == OUTPUT
    ]
    made = [one for one in events if one.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION]
    assert len(outputs) == len(made) == 18
    assert not any(one.event_specific_data.metadata for one in outputs)
    assert all("digest" in one.materialization.metadata for one in made)


@pytest.mark.parametrize("name", ["pipeline/summary"])
def test_the_summary_is_an_asset_that_nobody_runs(project, name):
    definitions = build_definitions(project.folder, project.state, in_this_process)
    graph = definitions.resolve_asset_graph()
    node = graph.get(dg.AssetKey(name.split("/")))
    assert not node.is_executable and node.group_name == "pipeline"
    assert {key.path[-1] for key in node.parent_keys} >= {"evaluation_of_merged", "leakage"}
