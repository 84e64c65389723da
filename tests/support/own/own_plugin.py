# ruff: noqa: ARG002
"""Plugins as a user would write them."""

from helpers import Half
from pydantic import BaseModel, Field
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState


class Args(BaseModel):
    """Keys of the plugin."""

    frozen_layer: int | None = Field(None, ge=0, description="the layer that is not trained")
    shrink: float = 1.0


class Shrink(TrainerCallback, ExportableState):
    """Makes an embedding smaller by a share that grows, which a checkpoint must keep."""

    def __init__(self, factor, times=0):
        self.factor, self.times = factor, times

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.times += 1
        model.get_input_embeddings().weight.data.mul_(self.factor ** (1 / self.times))
        print("shrunk", self.times)

    def state(self):
        return {"args": {"factor": self.factor}, "attributes": {"times": self.times}}


class Freezes:
    """A layer that is not trained, and an embedding that shrinks."""

    def get_input_args(self):
        return "own_plugin.Args"

    def post_model_load(self, cfg, model):
        if cfg.frozen_layer is not None:
            model.model.layers[cfg.frozen_layer].requires_grad_(False)

    def add_callbacks_pre_trainer(self, cfg, model):
        return [] if cfg.shrink == 1 else [Shrink(cfg.shrink)]


class Steps:
    """An optimizer and a scheduler."""

    def create_optimizer(self, cfg, trainer):
        trained = [one for one in trainer.model.parameters() if one.requires_grad]
        return Half(trained, lr=cfg.learning_rate, momentum=0.9)

    def create_lr_scheduler(self, cfg, trainer, optimizer, num_training_steps):
        assert isinstance(optimizer, SGD), type(optimizer)
        return LambdaLR(optimizer, lambda step: 1 / (1 + step))
