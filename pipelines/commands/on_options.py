"""The options of a run that is sent to other machines."""

import argparse


def add_on(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--on",
        metavar="ray://HOST[:8265]",
        help="do the work on a Ray cluster: the folder of the YAML is sent there, --state is a folder there",
    )
    parser.add_argument(
        "--on-gpus",
        type=_gpus,
        default=0,
        metavar="N",
        help="with --on: GPUs of one machine to set aside for the run",
    )


def _gpus(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GPUs; give 0 or more")
    return int(text)
