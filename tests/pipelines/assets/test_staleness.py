"""Stale means stale: what Dagster shows, what a plan wants, and what an automation condition asks for, after edits."""

import random
import shutil
from copy import deepcopy

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from support.project import Project, chat_row, make_project

from tunemill.pipelines.assets.folder import build_definitions
from tunemill.pipelines.assets.instance import open_instance
from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.plan import make_plan, not_in_place
from tunemill.pipelines.run.pinned import pin, unpin
from tunemill.resources.launcher import in_this_process

EDITS = 30
NAMES = ("pipeline", "next")
# What an edit may set, with values of which none is the first one.
SETTINGS = {
    "learning_rate": (0.002, 0.003),
    "lora_r": (2, 8),
    "max_steps": (3, 5),
    "seed": (1, 2),
    "sequence_len": (96, 64),
    "eval_max_new_tokens": (5, 6),
    "logging_steps": (2, 3),
    "quantization": ({"weight_dtype": "int8", "group_size": 16}, None),
    "val_set_size": (0.0,),
    "output_dir": ("elsewhere",),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Two pipelines, one of which goes on from the model of the other, both up to date; and a way back to that."""
    project = make_project(tmp_path_factory.mktemp("stale") / "project", pipeline={"automation": "stopped"})
    chained = {
        **project.config(),
        "base_model": "asset://pipeline/merged",
        "pipeline": {"name": "next", "automation": "stopped"},
    }
    for key in ("reinit_weights", "quantization", "test_datasets", "eval_max_new_tokens", "output_dir"):
        del chained[key]
    (project.folder / "next.yml").write_text(yaml.safe_dump(chained, sort_keys=False))
    bring_up_to_date(project)
    return project


@pytest.fixture
def project(base, tmp_path):
    shutil.copytree(base.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", tmp_path / "project" / ".tunemill")


def pipelines(project):
    return [load_pipeline(project.folder / f"{name}.yml") for name in NAMES]


def bring_up_to_date(project):
    for pipeline in pipelines(project):
        finished = run_pipeline(pipeline, project.store, launch=in_this_process)
        assert {item.state for item in finished} <= {"computed", "cached", "pinned", "left alone"}, finished


def served(project, instance):
    """The definitions as after a reload, once the sensor of the sources has looked."""
    repository = build_definitions(project.folder, project.state, in_this_process).get_repository_def()
    with dg.build_sensor_context(instance, repository_def=repository) as context:
        seen = repository.get_sensor_def("tunemill_sources").evaluate_tick(context)
    for event in seen.asset_events:
        instance.report_runless_asset_event(event)
    return repository


def unsynced(repository, instance):
    """`pipeline/node` of everything that the UI marks: stale, or never materialized."""
    graph = repository.asset_graph
    status = CachingStaleStatusResolver(instance, graph, loading_context=LoadingContextForTest(instance))
    return {
        key.to_user_string()
        for key in graph.materializable_asset_keys
        if status.get_status(key) is not StaleStatus.FRESH
    }


def asked_by_automation(repository, instance, pipeline):
    sensor = repository.get_sensor_def(f"{pipeline.name}_automation")
    with dg.build_sensor_context(instance, repository_def=repository, sensor_name=sensor.name) as context:
        asked = sensor.evaluate_tick(context).run_requests
    return {key.path[-1] for request in asked for key in request.asset_selection}


def with_downstream(pipeline, marked, plan):
    """These nodes and what stands behind them: up to what is pinned, and without what nobody needs."""
    found = set(marked)
    stays = {item.node.name for item in plan if item.pin is not None or item.left_alone}
    for node in pipeline.nodes:
        if any(name in found and name not in stays for name in upstream_of(node)):
            found.add(node.name)
    return found - stays


def agree(project, instance):
    """Asserts that the three agree, and returns what they want."""
    repository, wanted = served(project, instance), set()
    shown = unsynced(repository, instance)
    for pipeline in pipelines(project):
        plan = make_plan(pipeline, project.store)
        stays = {item.node.name for item in plan if item.pin is not None}
        planned = set(not_in_place(plan)) - stays
        marked = {name.split("/")[1] for name in shown if name.split("/")[0] == pipeline.name}
        assert with_downstream(pipeline, marked, plan) == planned, pipeline.name
        asked = asked_by_automation(repository, instance, pipeline)
        assert asked - stays == planned, (pipeline.name, asked ^ planned)
        wanted |= {f"{pipeline.name}/{name}" for name in planned}
    return wanted


def edit(project, pick):
    """One to three changes, of any kind; returns what was done."""
    done = []
    for _ in range(pick.randint(1, 3)):
        kind = pick.choice(["setting", "setting", "setting", "rows", "touch", "dataset", "pin"])
        path = project.folder / f"{pick.choice(NAMES)}.yml"
        config = yaml.safe_load(path.read_text())
        if kind == "setting":
            key = pick.choice([key for key in SETTINGS if key in config or key in ("seed", "logging_steps")])
            config[key] = deepcopy(pick.choice(SETTINGS[key]))
            done.append((path.stem, key, config[key]))
        elif kind in ("rows", "touch"):
            file = project.folder / "data" / f"{pick.choice(['sums', 'echoes', 'held_out'])}.jsonl"
            more = chat_row(f"{pick.random()} + 9", "10") if kind == "rows" else ""
            file.write_text(file.read_text() + more)
            done.append((kind, file.name))
        elif kind == "dataset":
            config["datasets"] = config["datasets"][:1] if len(config["datasets"]) > 1 else [
                *config["datasets"], {"path": "data/echoes.jsonl", "type": "chat_template"}
            ]  # fmt: skip
            done.append((path.stem, "datasets", len(config["datasets"])))
        else:
            node = pick.choice(["trained", "merged", "training_data", "dataset_sums"])
            pin(f"{path.stem}/{node}", project.store)
            done.append((path.stem, "pin", node))
        path.write_text(yaml.safe_dump(config, sort_keys=False))
    return done


@pytest.mark.slow
def test_over_random_edits_the_ui_the_plan_and_the_automation_agree(project):
    kept = {
        path: path.read_bytes() for path in [*project.folder.glob("*.yml"), *project.folder.glob("data/*")]
    }
    pick, wanted = random.Random(16), []
    with open_instance(project.state) as instance:
        assert agree(project, instance) == set()
        for _ in range(EDITS):
            done = edit(project, pick)
            try:
                wanted.append(agree(project, instance))
            except AssertionError as error:
                raise AssertionError(f"after {done}: {error}") from error
            for path, contents in kept.items():
                path.write_bytes(contents)
            for name in NAMES:
                for node in project.store.pins.of(name):
                    unpin(f"{name}/{node}", project.store)
        assert agree(project, instance) == set()
    assert len({frozenset(one) for one in wanted}) > 10


@pytest.mark.slow
def test_materializing_unsynced_wave_by_wave_ends_where_a_plan_has_nothing_to_do(project):
    """What is behind a stale node is stale when that has run, across pipelines too; and nothing runs that is not."""
    sums = project.folder / "data" / "sums.jsonl"
    sums.write_text(sums.read_text() + chat_row("1 + 9", "10"))
    project.edit(eval_max_new_tokens=5)
    waves = []
    with open_instance(project.state) as instance:
        wanted = agree(project, instance)
        while marked := unsynced(repository := served(project, instance), instance):
            waves.append(marked)
            for name in NAMES:
                keys = [dg.AssetKey(one.split("/")) for one in marked if one.split("/")[0] == name]
                job = repository.get_job(f"{name}_bring_up_to_date")
                assert not keys or job.execute_in_process(instance=instance, asset_selection=keys).success
        assert agree(project, instance) == set()
    assert wanted <= set().union(*waves)
    assert {"pipeline/dataset_sums", "next/dataset_sums", "pipeline/evaluation_of_base"} <= waves[0]
    assert any("next/base_model" in wave for wave in waves[3:]) and not any(
        one in wave for wave in waves for one in ("pipeline/dataset_echoes", "pipeline/base_model")
    )
