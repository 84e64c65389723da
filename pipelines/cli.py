"""The command line: one table from a command's name to its function."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tunemill import __version__
from tunemill.pipelines.commands import cache, check, lineage, plan, preprocess, run, schema, status, ui
from tunemill.pipelines.commands.options import print_json
from tunemill.pipelines.config.problems import ConfigError
from tunemill.resources.errors import LaunchError, StoreError
from tunemill.resources.redaction import hidden_in_errors, redacted, secrets_in
from tunemill.stages.errors import UserError

EXPECTED = (ConfigError, LaunchError, StoreError, UserError)
Command = Callable[[argparse.Namespace], int]

EPILOG = "Any key of the YAML can be overridden: --learning_rate=1e-4, --datasets[0].path=rows.jsonl."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    parser = make_parser()
    options, extra = parser.parse_known_args(arguments)
    overrides = [item.removeprefix("--") for item in extra if re.match(r"--[^=]+=", item)]
    if len(overrides) != len(extra) or (extra and not options.takes_overrides):
        parser.error(f"unrecognized arguments: {redacted(' '.join(extra))}")
    options.overrides = overrides
    command: Command = options.command
    try:
        with hidden_in_errors(secrets_in(overrides, os.environ), *EXPECTED, OSError):
            code = command(options)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        return _complain(options, "\n".join(error.lines()), [problem.as_json() for problem in error.problems])
    except EXPECTED as error:
        return _complain(options, str(error), [])
    except BrokenPipeError:
        # Whoever reads the output has seen enough, and nothing is left to say to them when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _complain(options, f"{error.filename or 'the system'}: {error.strerror or error}", [])
    except KeyboardInterrupt:
        return _complain(options, "interrupted; nothing half-done was published", []) + 129


def make_parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    parser = argparse.ArgumentParser(
        prog="tunemill",
        description="LLM post-training as a graph of cached stages.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tunemill {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (check, plan, preprocess, run, status, lineage, cache, schema, ui):
        module.add_to(commands)
    return parser


def _complain(options: argparse.Namespace, message: str, problems: list[dict[str, Any]]) -> int:
    message = redacted(message, secrets_in(options.overrides, os.environ))
    print(message, file=sys.stderr)
    if getattr(options, "json", False):
        print_json({"error": message, "problems": problems})
    return 1


if __name__ == "__main__":
    sys.exit(main())
