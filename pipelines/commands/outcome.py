"""Call a command, and say in a sentence what went wrong: no traceback for what a person can mend, and no secret."""

import argparse
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.config.spans import escaped
from tunemill.resources.errors import LaunchError, SourceWarning, StoreError
from tunemill.resources.redaction import hidden_in_errors, redacted, secrets_in
from tunemill.stages.errors import UserError

EXPECTED = (ConfigError, LaunchError, StoreError, UserError)
Command = Callable[[argparse.Namespace], int]


def call(options: argparse.Namespace) -> int:
    """Run the command of parsed options; return its exit code."""
    command: Command = options.command
    try:
        with hidden_in_errors(_secrets(options), *EXPECTED, OSError), _warnings_as_notes(options):
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
        from tunemill.pipelines.commands.options import state_folder
        from tunemill.resources.storage_errors import storage_message

        said = storage_message(error, state_folder(options)) if hasattr(options, "state") else None
        return _complain(options, said or f"{error.filename or 'the system'}: {error.strerror or error}", [])
    except KeyboardInterrupt as error:
        return _complain(options, str(error) or "interrupted; nothing half-done was published", []) + 129


@contextmanager
def _warnings_as_notes(options: argparse.Namespace) -> Iterator[None]:
    """What is said of sources is for the user, each once, without the place in our code; the rest is Python's."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, SourceWarning):
            shown(message, category, *place, **more)
            return
        print(
            escaped(redacted(f"note: {message}", _secrets(options)), keep="\n"), file=sys.stderr, flush=True
        )

    with warnings.catch_warnings():
        shown, warnings.showwarning = warnings.showwarning, show
        warnings.simplefilter("once", SourceWarning)
        yield


def _complain(options: argparse.Namespace, message: str, problems: list[dict[str, Any]]) -> int:
    message = redacted(message, _secrets(options))
    print(escaped(message, keep="\n"), file=sys.stderr)
    if getattr(options, "json", False):
        from tunemill.pipelines.commands.options import print_json

        print_json({"error": message, "problems": problems})
    return 1


def _secrets(options: argparse.Namespace) -> tuple[str, ...]:
    return secrets_in([override.text for override in options.overrides], os.environ)
