"""Axolotl's options that choose how many processes train, and where: read, and said to ask for nothing here."""

import argparse
import sys

from tunemill.stages.errors import SettingError

LAUNCHERS = ("accelerate", "torchrun", "python")


def add_launchers(parser: argparse.ArgumentParser) -> None:
    """`--launcher`, `--num-processes`, and what stands behind `--`."""
    parser.add_argument(
        "--launcher", choices=LAUNCHERS, help="read for Axolotl's sake: Tunemill starts its own processes"
    )
    parser.add_argument("--num-processes", metavar="N", help="1: one device trains")
    parser.add_argument("--cloud", metavar="FILE", help=argparse.SUPPRESS)
    parser.set_defaults(takes_launcher=True)


def launcher_notes(options: argparse.Namespace) -> None:
    """Say on stderr what asks for nothing. Raises SettingError for what cannot be honoured."""
    if options.cloud is not None:
        raise SettingError(
            f"--cloud {options.cloud}: Tunemill rents no machines. Run the command on the machine that trains"
        )
    if options.launcher_arguments:
        given = " ".join(options.launcher_arguments)
        raise SettingError(
            f"-- {given}: there is no launcher that arguments could go to: one process trains on one device, and "
            f"Tunemill starts it. Take them out"
        )
    if options.num_processes not in (None, "1"):
        raise SettingError(f"--num-processes {options.num_processes}: one device trains so far. Take it out")
    if options.launcher in ("accelerate", "torchrun"):
        print(
            f"note: --launcher {options.launcher} asks for nothing: one process trains, and Tunemill starts it",
            file=sys.stderr,
        )
