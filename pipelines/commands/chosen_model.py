"""The model that a command talks with or serves: which one is meant, brought up to date, as folders."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.pipelines.commands.adapters import is_own_adapter
from tunemill.pipelines.commands.launchers import add_launchers, launcher_overrides
from tunemill.pipelines.commands.options import add_pipeline, add_state, store_of
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.model_places import BEST, ModelNodes, lets_code_run, model_of, models_of
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.plan import Planned, make_plan
from tunemill.pipelines.graph.selection import chapter_of
from tunemill.pipelines.run.estimate import estimate
from tunemill.resources.local import is_folder, local_path
from tunemill.resources.store import Store
from tunemill.stages.errors import SettingError, UserError

# The chapter of the stages that may take hours.
LONG = "training"


@dataclass(frozen=True)
class ChosenModel:
    """The folders of a model, and of an adapter beside it. `own_code`: whether Python files in them may run."""

    name: str
    model: Path
    adapter: Path | None = None
    own_code: bool = True


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The YAML, and which of its models is meant."""
    add_pipeline(parser)
    add_state(parser)
    parser.add_argument(
        "--of",
        metavar="WHAT",
        help="base, trained, merged, quantized, or an export of a whole model (default: the merged model if it is "
        "there, else the trained one)",
    )
    parser.add_argument("--yes", action="store_true", help="train first where that is needed, without asking")
    parser.add_argument(
        "--base-model", metavar="MODEL", help="take this folder, or model of the Hub, instead"
    )
    parser.add_argument(
        "--lora-model-dir", metavar="DIR", help="take this adapter, beside the base of the YAML"
    )
    add_launchers(parser)


def chosen_models(options: argparse.Namespace, against: str | None = None) -> list[ChosenModel]:
    """The model that the options mean, and the one to compare it with.

    Raises SettingError for one that there is not, UserError where training would have to run first and nobody agreed.
    """
    options.overrides += launcher_overrides(options)
    if options.base_model is not None and (options.of or options.lora_model_dir):
        raise SettingError("--base-model names the model; take --of and --lora-model-dir out")
    if options.of is not None and options.lora_model_dir is not None:
        raise SettingError("--lora-model-dir names an adapter beside the base; take --of out")
    pipeline = load_pipeline(options.pipeline, options.overrides)
    store = store_of(options, make=True, named=pipeline.store)
    own, wanted = _from_outside(options, pipeline)
    if own is None:
        wanted = [wanted[0] if wanted else _best(pipeline, store)]
    if against is not None:
        wanted = [*wanted, model_of(pipeline, against)]
    folders = bring_up(options, pipeline, store, wanted)
    found = [] if own is None else [own]
    for nodes in wanted:
        adapter = None if nodes.adapter is None else folders[nodes.adapter]
        found.append(ChosenModel(nodes.what, folders[nodes.model], adapter))
    if options.lora_model_dir is not None and wanted[0].adapter is None:
        given = local_path(options.lora_model_dir, "--lora-model-dir")
        found[0] = ChosenModel(str(given), found[0].model, given.resolve())
    return found


def _from_outside(
    options: argparse.Namespace, pipeline: Pipeline
) -> tuple[ChosenModel | None, list[ModelNodes]]:
    """A model that is no node of the pipeline; or else the node that is named, if one is."""
    if options.base_model is not None:
        folder = local_path(options.base_model, "--base-model")
        if not is_folder(str(folder)):
            raise SettingError(
                f"--base-model {options.base_model}: no folder here. For a model of the Hub write it as base_model in "
                f"a YAML, or override it: base_model={options.base_model} --of base"
            )
        _check_model(folder)
        return ChosenModel(str(folder), folder.resolve(), None, lets_code_run(pipeline)), []
    if options.lora_model_dir is not None:
        given = local_path(options.lora_model_dir, "--lora-model-dir")
        if is_own_adapter(pipeline, options.lora_model_dir):
            return None, [model_of(pipeline, "trained")]
        _check_adapter(given)
        return None, [model_of(pipeline, "base")]
    return None, [model_of(pipeline, options.of)] if options.of is not None else []


def _check_model(folder: Path) -> None:
    """Raises UserError for a folder without a whole model and its tokenizer."""
    from tunemill.stages.data.tokenizer.folder import fault_of_folder as fault_of_words
    from tunemill.stages.models.model_folder import (
        fault_of_folder,
        fault_of_generation,
        fault_of_json,
        settings_of,
    )
    from tunemill.stages.models.weights import tensors_of_model

    if reason := fault_of_folder(folder) or fault_of_words(folder) or fault_of_generation(folder):
        raise SettingError(f"--base-model: {reason}")
    if settings_of(folder) is None:
        raise SettingError(f"--base-model: {fault_of_json(folder / 'config.json')}")
    tensors_of_model(folder)


def _check_adapter(folder: Path) -> None:
    """Raises UserError for a folder without a whole adapter."""
    from tunemill.stages.models.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, stored_settings
    from tunemill.stages.models.weights import read_header

    if stored_settings(folder) is None:
        raise SettingError(
            f"--lora-model-dir {folder}: no {ADAPTER_CONFIG} there that can be read, so no adapter"
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise SettingError(
            f"--lora-model-dir {folder}: no {ADAPTER_WEIGHTS}. Save the adapter as safetensors: pickled weights are "
            f"not read"
        )
    read_header(folder / ADAPTER_WEIGHTS)


def _best(pipeline: Pipeline, store: Store) -> ModelNodes:
    """The first that is up to date of those that anybody would want; the first where none is."""
    found = models_of(pipeline)
    liked = [found[what] for what in BEST if what in found]
    for nodes in liked:
        if not to_run(make_plan(pipeline, store, (), nodes.nodes)):
            if nodes is not liked[0]:
                print(f"note: {liked[0].what} is not up to date; this is {nodes.what}", file=sys.stderr)
            return nodes
    return liked[0]


def to_run(planned: Iterable[Planned]) -> list[Planned]:
    """What a plan would compute."""
    return [item for item in planned if item.state == "run"]


def bring_up(
    options: argparse.Namespace, pipeline: Pipeline, store: Store, wanted: Iterable[ModelNodes]
) -> dict[str, Path]:
    """The folders of the nodes, computed where they are not there. Raises UserError where that may take hours."""
    names = frozenset(name for nodes in wanted for name in nodes.nodes)
    planned = make_plan(pipeline, store, (), names)
    running = to_run(planned)
    if not running:
        return {
            item.node.name: store.bring(item.cached, to_stderr).data
            for item in planned
            if item.node.name in names and item.cached is not None
        }
    if any(chapter_of(item.node) == LONG for item in running) and not options.yes:
        _ask(options, running)
    from tunemill.pipelines.commands.tables import show_run
    from tunemill.pipelines.commands.watched import watched_run

    finished = watched_run(pipeline, store, (), names)
    failed = [item.node for item in finished if item.state in ("failed", "skipped")]
    if failed:
        show_run(finished, verbose=False)
        raise UserError(f"failed: {', '.join(failed)}; what is finished is kept")
    return {
        item.node: store.bring(item.published, to_stderr).data
        for item in finished
        if item.node in names and item.published is not None
    }


def to_stderr(text: str) -> None:
    """Say something beside what the command prints."""
    print(text, file=sys.stderr)


def _ask(options: argparse.Namespace, running: list[Planned]) -> None:
    """Ask whether to train first. Raises UserError where nobody can be asked, or says no."""
    names = ", ".join(item.node.name for item in running)
    said = f"not computed yet, or not as the YAML is now: {names}. It takes {estimate(running)}."
    if sys.stdin.isatty() and sys.stderr.isatty():
        print(said, file=sys.stderr)
        print("Run that first? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
        raise UserError("nothing was run")
    raise UserError(
        f"{said} Say --yes to run that first, or name a model that is there with --of; `tunemill plan "
        f"{options.pipeline}` says why it would run"
    )


def model_arguments(chosen: ChosenModel) -> dict[str, Any]:
    """What loads it."""
    return {"model": chosen.model, "adapter": chosen.adapter, "own_code": chosen.own_code}
