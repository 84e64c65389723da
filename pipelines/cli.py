"""The command line: one table of commands. Only of the command that is given the module is imported."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from tunemill import __version__
from tunemill.pipelines.commands.arguments import EPILOG, parse
from tunemill.resources.imports import import_to_stay

# The module of each in `commands/` has its name, with `_` for `-`.
COMMANDS = {
    "init": "look at rows and write a YAML that trains on them",
    "check": "check YAMLs and that the files they name are there; reads no rows, asks no network",
    "plan": "show what is cached, what will run and why; changes nothing",
    "preprocess": "prepare the data and nothing else; show it, or write it to a file",
    "run": "compute what is not in the store yet, and nothing else",
    "sweep": "run every point of a sweep, what they share once, and say which is the best",
    "train": "bring the trained model up to date",
    "evaluate": "bring the evaluations up to date",
    "merge-lora": "bring the model with its adapter folded in up to date",
    "quantize": "bring the quantized model up to date",
    "lm-eval": "bring the scores of lm-evaluation-harness up to date",
    "inference": "talk with a model of the pipeline, alone or beside another, or let it answer a file",
    "serve": "serve a model of the pipeline on this machine, in OpenAI's protocol",
    "vllm-serve": "the same in vLLM, with the vllm block of the YAML",
    "adopt": "register a model, an adapter or prepared rows that exist already, as asset://NAME",
    "pin": "keep the artifact that a node has now, whatever its YAML asks for",
    "unpin": "take a pin away; the next run brings the node up to date",
    "status": "show what every node of every pipeline points to now, and what is stale",
    "rollouts": "browse what a model answered while it was trained on its own completions",
    "rescore": "score kept completions by edited rewards, and say what would have changed",
    "report": "write one page of a pipeline's last run for a browser",
    "diff": "whether two evaluated models differ by more than noise, and on which rows",
    "lineage": "show which data and settings made a model",
    "reproduce": "make a model again from the lineage inside its folder, and compare stage by stage",
    "verify": "check the signature of a published model with a public key",
    "logs": "show what the stage behind a node printed, now or last time",
    "cache": "look after the store: ls, verify, prune",
    "merge-sharded-fsdp-weights": "put the weights that FSDP stored in parts into one safetensors file",
    "schema": "print a JSON schema of the YAML, for editors",
    "config-schema": "the same as schema, by Axolotl's name",
    "docs": "print a page of the documentation, or part of one; needs no network",
    "fetch": "copy the examples or the documentation that come with Tunemill into a folder",
    "completion": "print a script that completes command lines in bash, zsh or fish",
    "ui": "open Dagster on 127.0.0.1 over the pipelines of a folder",
}


# Those of Axolotl that bring a node up to date share one module.
VERBS = ("train", "evaluate", "merge-lora", "quantize", "lm-eval")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    command_name = next((word for word in given if not word.startswith("-")), "")
    options = parse(make_parser([command_name]), given)
    # Only here: whoever asks for help waits for nothing else.
    from tunemill.pipelines.commands.outcome import call

    return call(options)


def make_parser(with_options: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Every command; only those `with_options` can be parsed further than to their names."""
    parser = argparse.ArgumentParser(
        prog="tunemill",
        description="LLM post-training as a graph of cached stages.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tunemill {__version__}")
    # For the command that shows all of them to a shell.
    parser.set_defaults(make_parser=make_parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        if name in VERBS and name in with_options:
            _module("verbs").add_verb(commands, name, text)
        elif name in with_options:
            _module(name).add_to(commands, text)
        else:
            commands.add_parser(name, help=text)
    return parser


def _module(command: str) -> Any:
    """The module of a command."""
    # Looking for plugins of pydantic means to read the metadata of every distribution that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    return import_to_stay(f"tunemill.pipelines.commands.{command.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
