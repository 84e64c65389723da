"""Another Trainer of the same name."""

from transformers import Trainer


class Weighs(Trainer):
    """Three times the loss."""

    def compute_loss(self, *given, **named):
        return 3 * super().compute_loss(*given, **named)
