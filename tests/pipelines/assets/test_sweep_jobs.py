"""A sweep in Dagster: each point a group of assets, and one job for all of them."""

import dagster as dg
from support.project import make_project

from tunemill.pipelines.assets.folder import build_definitions


def test_each_point_is_a_group_and_the_sweep_has_a_job(tmp_path):
    block = {
        "evaluate": [],
        "sweep": {"learning_rate": [0.5, 0.25, 0.1]},
        "sweep_settings": {"max_runs": 2},
        "publish": {"to": [str(tmp_path / "published")]},
    }
    project = make_project(tmp_path / "p", quantization=None, eval_max_new_tokens=None, pipeline=block)
    definitions = build_definitions(project.folder, project.state)
    graph = definitions.resolve_asset_graph()
    groups = {graph.get(key).group_name for key in graph.materializable_asset_keys}
    assert groups >= {"pipeline_lr_0_5", "pipeline_lr_0_25", "pipeline_lr_0_1"}
    job = definitions.resolve_job_def("pipeline_sweep")
    chosen = job.asset_layer.executable_asset_keys
    assert {key.path[0] for key in chosen} == {"pipeline_lr_0_5", "pipeline_lr_0_25"}
    names = {key.path[1] for key in chosen if key.path[0] == "pipeline_lr_0_5"}
    assert {"trained", "merged", "tokenized_sums"} <= names and "published" not in names
    assert dg.AssetKey(["pipeline_lr_0_1", "published"]) in graph.materializable_asset_keys
    assert "the first ones of 3 (max_runs)" in (job.description or "")
