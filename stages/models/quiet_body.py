"""Libraries that talk on stdout are told once to be still: what a person should read goes through the report."""

from transformers.utils import logging


def be_quiet() -> None:
    """No progress bars and no notes from transformers; errors still show."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
