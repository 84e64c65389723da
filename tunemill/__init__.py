"""Tunemill: LLM post-training as a graph of cached stages in Dagster."""

__version__ = "0.1.0"
