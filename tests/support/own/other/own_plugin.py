"""Another plugin of the same name."""

from torch.optim import SGD


class Steps:
    """Whole steps."""

    def create_optimizer(self, cfg, trainer):
        return SGD(trainer.model.parameters(), lr=cfg.learning_rate)
