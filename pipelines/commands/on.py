"""`tunemill run --on ray://HOST`: the plan is made here, the work is done on a Ray cluster."""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from tunemill.pipelines.commands.listing import show
from tunemill.pipelines.commands.options import note_lines, state_folder, store_of, team_url
from tunemill.pipelines.commands.tables import plan_table
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.plan import make_plan
from tunemill.pipelines.graph.selection import Selection
from tunemill.resources.canonical import hash_document
from tunemill.resources.identity import identify
from tunemill.resources.objects import NO_TEAM
from tunemill.resources.ray_jobs import SCHEME, Jobs, Sent
from tunemill.resources.store import Store
from tunemill.stages.errors import SettingError

# What lies beside a YAML and is no part of what it reads.
LEFT_OUT = (".git", ".tunemill", ".venv", "__pycache__")


def run_there(options: argparse.Namespace, pipeline: Pipeline, chosen: Selection) -> int:
    """Show the plan, send the run, show what it says; 1 if it failed.

    Raises SettingError for what cannot be sent, StoreError where the cluster does not answer.
    """
    refuse_on(options, pipeline)
    for line in note_lines(pipeline):
        print(line, file=sys.stderr)
    store, folder = (
        store_of(options, named=pipeline.store, looks=True),
        pipeline.document.path.absolute().parent,
    )
    show(plan_table(make_plan(pipeline, store, chosen.refresh, chosen.only), {}))
    jobs = Jobs(options.on)
    note = Path(".tunemill").absolute() / "sent" / f"{pipeline.name}.json"
    sent, asks = Sent.read(note), what_is_asked(options, pipeline, store)
    if sent is not None and sent.address == jobs.address and jobs.state(sent) in ("PENDING", "RUNNING"):
        refuse_another(sent, asks)
        show(f"still at work on {jobs.address} as {sent.number}: what follows is what it says")
    else:
        outputs = [place for place in (pipeline.output_dir, pipeline.prepared_path) if place is not None]
        inside = [
            str(place.relative_to(folder)) for place in (*outputs, store.root) if place.is_relative_to(folder)
        ]
        command = command_there(options, pipeline)
        sent = jobs.submit(
            command, folder, [*LEFT_OUT, *inside], options.on_gpus, {"PYTHONUNBUFFERED": "1"}, asks
        )
        sent.write(note)
        show(
            f"sent to {jobs.address} as {sent.number}; Ctrl-C ends it there, and whoever is cut off runs this again"
        )
    ended = jobs.follow(sent, lambda text: print(text, end="", flush=True))
    note.unlink(missing_ok=True)
    show(f"{sent.number} on {jobs.address}: {ended.lower()}")
    return 0 if ended == "SUCCEEDED" else 1


def command_there(options: argparse.Namespace, pipeline: Pipeline) -> str:
    """The command line of the run there, with what this machine has decided."""
    words = ["python", "-P", "-m", "tunemill.pipelines.cli", "run", pipeline.document.path.name]
    words += [] if options.state is None else ["--state", str(state_folder(options))]
    words += ["--store", team_url(options, pipeline.store) or NO_TEAM]
    for option in ("only", "refresh"):
        words += [word for text in getattr(options, option) for word in (f"--{option}", text)]
    words += ["--json"] * options.json + ["--verbose"] * options.verbose
    words += [f"--{override.text.removeprefix('--').replace(' ', '=', 1)}" for override in options.overrides]
    # By what is here the global batch was computed, and so the key.
    words.append(f"--pipeline.launcher.processes={pipeline.launcher.count // pipeline.launcher.nodes}")
    return shlex.join(words)


def what_is_asked(options: argparse.Namespace, pipeline: Pipeline, store: Store) -> str:
    """A hash of the command there and of what is sent with it: the YAML, and the files that it reads."""
    return hash_document({
        "command": command_there(options, pipeline),
        "gpus": options.on_gpus,
        "yaml": pipeline.document.path.read_text(),
        "files": {name: identify(Path(name), store.stat_cache) for name in sorted({*files_read(pipeline)})},
    })  # fmt: skip


def refuse_another(sent: Sent, asks: str) -> None:
    """Raises SettingError where the run that is at work there is not the one that is asked for now."""
    if sent.asks != asks:
        raise SettingError(
            f"--on: {sent.number} is still at work on {sent.address}, and was sent with another YAML, other files or "
            f"other options. Give the command that sent it, whose Ctrl-C ends it; or end it: ray job stop "
            f"{sent.number} --address http://{sent.address}"
        )


def refuse_on(options: argparse.Namespace, pipeline: Pipeline) -> None:
    """Raises SettingError for what --on does not do."""
    if not options.on.startswith(SCHEME):
        raise SettingError(
            f"--on {options.on}: only Ray clusters take work so far: ray://HOST:8265. On a machine of yours give the "
            f"command there: ssh {options.on} tunemill run ..."
        )
    if options.state is None and team_url(options, pipeline.store) is None:
        raise SettingError(
            "--on: give --store, the team's store, or --state, a folder on a disk that the machines of the cluster "
            "share; without them the result would lie in a folder that is dropped with the job"
        )
    if pipeline.launcher.nodes > 1:
        raise SettingError(
            "--on: several machines of a Ray cluster train together with pipeline.launcher: {kind: ray}; nodes is for "
            "machines that you start yourself"
        )
    if outside := sorted(set(sources_outside(pipeline))):
        raise SettingError(
            f"--on sends the folder of the YAML, {pipeline.document.path.absolute().parent}, and these lie elsewhere: "
            f"{', '.join(outside)}. Put them below it, on the Hub or into an object store"
        )


def sources_outside(pipeline: Pipeline) -> Iterator[str]:
    """Files and folders that the pipeline reads, and that are not below the folder of its YAML."""
    folder = pipeline.document.path.absolute().parent
    return (name for name in files_read(pipeline) if not Path(name).is_relative_to(folder))


def files_read(pipeline: Pipeline) -> Iterator[str]:
    """Files and folders that the pipeline reads."""
    for node in pipeline.nodes:
        for names in node.places_named.values():
            yield from (name for name in names if "://" not in name)
