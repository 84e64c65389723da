"""Signals that end a command, whoever started it."""

import signal


def end_on_interrupt_and_term() -> None:
    """Both end the command as Ctrl-C does.

    A shell script starts `command &` with the interrupt ignored, and Dagster gives TERM whatever the interrupt has: the
    command could not be ended at all.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
