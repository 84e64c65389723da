"""What the `merged` stage reads from the YAML: nothing. The adapter says how it is to be folded in."""

from tunemill.stages.declaration import StageConfig


class MergedConfig(StageConfig):
    """No keys."""
