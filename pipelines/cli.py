"""The command line: one table of commands. Only of the command that is given the module is imported."""

import argparse
import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tunemill import __version__
from tunemill.pipelines.commands.arguments import EPILOG, parse
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.config.spans import escaped
from tunemill.resources.errors import LaunchError, StoreError
from tunemill.stages.errors import UserError

EXPECTED = (ConfigError, LaunchError, StoreError, UserError)
Command = Callable[[argparse.Namespace], int]

# The module of each in `commands/` has its name.
COMMANDS = {
    "check": "check YAMLs and that the files they name are there; reads no rows, asks no network",
    "plan": "show what is cached, what will run and why; changes nothing",
    "preprocess": "prepare the data and nothing else; show it, or write it to a file",
    "run": "compute what is not in the store yet, and nothing else",
    "status": "show what every node of every pipeline points to now",
    "lineage": "show which data and settings made a model",
    "cache": "look after the store: ls, verify, prune",
    "schema": "print a JSON schema of the YAML, for editors",
    "ui": "open Dagster on 127.0.0.1 over the pipelines of a folder",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    command_name = next((word for word in given if not word.startswith("-")), "")
    options = parse(make_parser([command_name]), given)
    from tunemill.resources.redaction import hidden_in_errors

    command: Command = options.command
    try:
        with hidden_in_errors(_secrets(options), *EXPECTED, OSError):
            code = command(options)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        shown = "\n".join(error.shown(shutil.get_terminal_size().columns))
        return _complain(options, shown, [problem.as_json() for problem in error.ordered()])
    except EXPECTED as error:
        return _complain(options, str(error), [])
    except BrokenPipeError:
        # Whoever reads the output has seen enough, and nothing is left to say to them when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        from tunemill.resources.storage_errors import storage_message

        said = storage_message(error, Path(getattr(options, "state", None) or "."))
        return _complain(options, said or f"{error.filename or 'the system'}: {error.strerror or error}", [])
    except KeyboardInterrupt as error:
        return _complain(options, str(error) or "interrupted; nothing half-done was published", []) + 129


def make_parser(with_options: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Every command; only those `with_options` can be parsed further than to their names."""
    parser = argparse.ArgumentParser(
        prog="tunemill",
        description="LLM post-training as a graph of cached stages.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tunemill {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        if name in with_options:
            _module(name).add_to(commands, text)
        else:
            commands.add_parser(name, help=text)
    return parser


def _module(command: str) -> Any:
    """The module of a command. What it imports stays, so to look for garbage meanwhile is a tenth more for nothing."""
    # Looking for plugins of pydantic means to read the metadata of every distribution that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()
    try:
        return import_module(f"tunemill.pipelines.commands.{command}")
    finally:
        gc.enable()


def _complain(options: argparse.Namespace, message: str, problems: list[dict[str, Any]]) -> int:
    from tunemill.resources.redaction import redacted

    message = redacted(message, _secrets(options))
    print(escaped(message, keep="\n"), file=sys.stderr)
    if getattr(options, "json", False):
        from tunemill.pipelines.commands.options import print_json

        print_json({"error": message, "problems": problems})
    return 1


def _secrets(options: argparse.Namespace) -> tuple[str, ...]:
    from tunemill.resources.redaction import secrets_in

    return secrets_in([override.text for override in options.overrides], os.environ)


if __name__ == "__main__":
    sys.exit(main())
