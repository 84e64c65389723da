"""What the `grpo` stage reads from the YAML."""

from tunemill.stages.training.online.policy_keys import PolicyKeys


class GrpoConfig(PolicyKeys):
    """Group relative policy optimization, full or LoRA."""
