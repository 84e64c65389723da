"""Axolotl's options that choose how many processes train: they set `pipeline.launcher`."""

import argparse
from itertools import zip_longest

from tunemill.pipelines.config.launcher_keys import LAUNCHERS
from tunemill.pipelines.config.overrides import Override, override_of
from tunemill.stages.errors import SettingError

# What launchers call the processes of one machine, the machines, and where these meet.
ARGUMENTS = {
    "--num-processes": "processes",
    "--nproc-per-node": "processes",
    "--num-gpus": "processes",
    "--nnodes": "nodes",
    "--node-rank": "node_rank",
    "--rdzv-endpoint": "rendezvous",
}


def add_launchers(parser: argparse.ArgumentParser) -> None:
    """`--launcher`, `--num-processes`, and what stands behind `--`."""
    parser.add_argument(
        "--launcher", choices=LAUNCHERS, help="sets pipeline.launcher.kind; python trains in one process"
    )
    parser.add_argument("--num-processes", metavar="N", help="sets pipeline.launcher.processes")
    parser.add_argument("--cloud", metavar="FILE", help=argparse.SUPPRESS)
    parser.set_defaults(takes_launcher=True)


def launcher_overrides(options: argparse.Namespace) -> list[Override]:
    """What the options say of `pipeline.launcher`. Raises SettingError for what cannot be honoured."""
    if options.cloud is not None:
        raise SettingError(
            f"--cloud {options.cloud}: Tunemill rents no machines. Run the command on the machine that trains"
        )
    asked: dict[str, str] = {}
    if options.launcher is not None:
        asked["kind"] = options.launcher
    if options.num_processes is not None:
        asked["processes"] = options.num_processes
    asked |= _of_launcher(options.launcher_arguments)
    return [override_of(f"pipeline.launcher.{key}={value}") for key, value in asked.items()]


def _of_launcher(arguments: list[str]) -> dict[str, str]:
    """What of a launcher's own arguments stands behind `--`, as keys of `pipeline.launcher`."""
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    found: dict[str, str] = {}
    for name, value in zip_longest(words[::2], words[1::2]):
        key = ARGUMENTS.get(str(name).replace("_", "-"))
        if key is None or value is None:
            raise SettingError(
                f"-- {' '.join(arguments)}: of a launcher's own arguments only {', '.join(ARGUMENTS)} are read, each "
                f"with a value. What processes share stands in the keys of training"
            )
        found[key] = value
    return found
