"""Libraries that talk on stdout are told once to be still: what a person should read goes through the report."""

from logging import ERROR, getLogger

from transformers.utils import logging


def be_quiet() -> None:
    """No progress bars and no notes from transformers; errors still show."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # bitsandbytes says with every product of 8-bit weights that their inputs are rounded.
    getLogger("bitsandbytes").setLevel(ERROR)
