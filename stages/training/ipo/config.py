"""What the `ipo` stage reads from the YAML."""

from tunemill.stages.training.keys.reference import ReferenceKeys


class IpoConfig(ReferenceKeys):
    """Identity preference optimization, full or LoRA."""
