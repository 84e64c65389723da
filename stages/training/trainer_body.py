"""The Trainer of every method: its loss over a whole step, however many micro batches and processes a step has."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader

from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.added_loss_body import AddedLoss, loss_of_no_token
from tunemill.stages.training.ahead_body import means_ahead
from tunemill.stages.training.background_body import Background
from tunemill.stages.training.layer_offloading_body import LayerOffloading
from tunemill.stages.training.memory_body import Offloading
from tunemill.stages.training.method import OwnLoss
from tunemill.stages.training.plugins_body import Plugins
from tunemill.stages.training.sharded_trainer_body import ShardedTrainer
from tunemill.stages.training.sharding import Sharding
from tunemill.stages.training.shares import Share
from tunemill.stages.training.texts_body import trained_tokens


class LoopTrainer(ShardedTrainer):
    """The Trainer, with the loss of a method that has its own, and what a model adds to either."""

    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        *,
        own_loss: OwnLoss | None,
        share: Share,
        offloading: Offloading | LayerOffloading | None,
        make_optimizer: Callable[..., Any],
        make_scheduler: Callable[[Any, int], Any],
        plugins: Plugins,
        background: Background | None = None,
        sharding: Sharding | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.background, self.sharding = background, sharding or Sharding()
        self.offloading = offloading
        assert share.together == 1 or own_loss is None, "an own loss counts and shifts whole sequences"
        self._share = share
        self._at, self._micro_batches = 0, 1
        self._make_optimizer, self._make_scheduler = make_optimizer, make_scheduler
        self._plugins = plugins
        self._own_loss = own_loss
        self._sums: dict[str, float] = {}
        self._model_adds = False
        if own_loss is not None:
            # Each micro batch is divided by the counts of the whole step, so nothing is left to divide.
            self.loss_is_scaled_for_ga = True

    def create_optimizer(self, model: Any = None) -> Any:
        """The optimizer that a plugin makes, or else the one that the config asks for."""
        if self.optimizer is None:
            self.optimizer = self._plugins.optimizer(self)
        if self.optimizer is None:
            trained = self.model if model is None else model
            self.optimizer = self._make_optimizer(trained, self.get_decay_parameter_names(trained))
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The scheduler that a plugin makes, or else the one that the config asks for."""
        if self.lr_scheduler is None:
            made_for = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = self._plugins.scheduler(self, made_for, num_training_steps)
            if self.lr_scheduler is None:
                self.lr_scheduler = self._make_scheduler(made_for, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def count_added_loss(self) -> None:
        """From now on the model adds to the loss of a step the mean of what it adds in the micro batches."""
        self._model_adds = True
        if self._own_loss is None:
            self.loss_is_scaled_for_ga = False
        else:
            plain_model(self.model).loss_function = loss_of_no_token

    def get_train_dataloader(self) -> Any:
        """The micro batches of an epoch; among several processes those of this one's share."""
        if self._share.processes == 1:
            return super().get_train_dataloader()
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self._share,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        # Nothing is left to be shared: it only puts batches on the device, and tells the examples of each epoch.
        return prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The micro batches of a step; and for an own loss its counts over all of them, in place of a token count."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._at, self._micro_batches = 0, len(batches)
        # One that does not count is in no sum.
        counted = [True] * len(batches)
        if self._share.processes > 1:
            self._micro_batches = self._share.micro_batches(self.state.global_step + 1)
            counted = [self._counts(at) for at in range(len(batches))]
        if self._own_loss is None:
            if self._share.processes > 1:
                own = [batch for batch, counts in zip(batches, counted, strict=True) if counts]
                items = self._items_of_all(own, device)
            # The Trainer divides what the model adds by the number of micro batches, and the rest with it.
            return batches, items / self._micro_batches if self._model_adds and items is not None else items
        if self._own_loss.made is not None:
            with self.compute_loss_context_manager():
                batches = self._own_loss.made(self.model_wrapped, self.state.global_step, batches)
        sums: dict[str, int] = {}
        for batch, counts in zip(batches, counted, strict=True):
            for name, count in self._own_loss.counts(batch).items():
                sums[name] = sums.get(name, 0) + (count if counts else 0)
        with self.compute_loss_context_manager():
            means = means_ahead(self._own_loss, self.model_wrapped, batches, counted)
        return [{**batch, **means} for batch in batches] if means else batches, ranks.summed(sums)

    def _items_of_all(self, batches: list[Any], device: Any) -> float:
        """How many tokens a step trains, by what this process has of it and what the others do."""
        if self._share.together > 1:
            # The Trainer would divide by the processes that share a sequence, and drop the remainder.
            found = sum(trained_tokens(batch)["tokens"] for batch in batches)
        else:
            found = self._get_num_items_in_batch(batches, device) or 0
        return ranks.summed({"items": float(found)})["items"] / self._share.together

    def _counts(self, at: int) -> bool:
        return self._share.counts(self.state.global_step + 1, at)

    def compute_loss_context_manager(self) -> ExitStack:
        """What surrounds a forward pass: autocast, and where activations wait for the backward pass."""
        around: ExitStack = super().compute_loss_context_manager()
        if self.offloading is not None:
            around.enter_context(self.offloading.of(self.model))
        return around

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This micro batch's part of the mean over the step."""
        if self._share.processes == 1:
            return self._part_of_step(model, inputs, return_outputs, num_items_in_batch, counts=True)
        counts, number = self._counts(self._at), self._share.number(self._at)
        self._at += 1
        # What is left out of a micro batch is the same whichever process computes it.
        parts = (self._share.part,) if self._share.together > 1 else ()
        ranks.draw_anew(self.args.seed, self.state.global_step, number + 1, *parts)
        loss = self._part_of_step(model, inputs, False, num_items_in_batch, counts)
        # Gradients become the mean over the processes, and their sum is wanted.
        return loss * (self._share.processes if counts else 0)

    def _part_of_step(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool, items: Any, counts: bool
    ) -> Any:
        if self._own_loss is None:
            # By name: one of one's own may take the last as one of **kwargs, as transformers' own examples do.
            found = super().compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=items
            )
            if self._model_adds and self._share.ranks > 1:
                # The Trainer will divide by this process's number of micro batches.
                return found * self.current_gradient_accumulation_steps / self._micro_batches
            return found
        called = AddedLoss(model) if self._model_adds else model
        parts = self._own_loss.loss(called, inputs)
        step: Mapping[str, int] = items
        for name, (total, counted) in parts.metrics.items():
            if step[counted]:
                part = float(total) / step[counted] if counts else 0.0
                self._sums[name] = self._sums.get(name, 0.0) + part
        loss = sum(total / step[counted] for counted, total in parts.totals.items())
        return loss + called.mean / self._micro_batches if self._model_adds else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The step's own metrics stand beside its loss."""
        self._sums = ranks.summed(self._sums)
        derived = {} if self._own_loss is None else self._own_loss.derived(self._sums)
        super().log({**logs, **self._sums, **derived}, start_time)
        self._sums = {}
