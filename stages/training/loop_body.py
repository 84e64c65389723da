"""The training loop, whatever the method: model, examples and settings go into the Trainer, weights come out."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.files import copy_tokenizer, forget_versions
from tunemill.stages.models.generation_body import keep_generation, set_generation_aside
from tunemill.stages.models.loading_body import is_quantized, load_causal_lm, load_model
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.tokenizer_ids_body import check_same_tokenizer
from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.adapters.add_body import add_adapter, save_adapter
from tunemill.stages.training.adapters.from_data_body import Examined, start_from_data
from tunemill.stages.training.adapters.linearized_body import linearize_experts
from tunemill.stages.training.adapters.loftq_body import tell_rounding
from tunemill.stages.training.adapters.quantized_base_body import check_quantized, hold_experts_packed
from tunemill.stages.training.adapters.relora_body import Restarts
from tunemill.stages.training.adapters.starts_body import prove_start
from tunemill.stages.training.added_loss_body import (
    AddedLoss,
    balances_experts,
    check_added_loss,
    keep_mask_for_balance,
    loss_of_no_token,
    probe_loss,
)
from tunemill.stages.training.ahead_body import means_ahead
from tunemill.stages.training.best_body import best_of, rates_of
from tunemill.stages.training.callbacks_body import Checkpoints, Monitor, Reporter
from tunemill.stages.training.embeddings_body import train_every_row
from tunemill.stages.training.experts_body import set_experts
from tunemill.stages.training.frozen_body import choose_trained
from tunemill.stages.training.kernels.insert_body import add_kernels, check_kernels_here
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.layer_offloading_body import LayerOffloading, layer_offloading_of
from tunemill.stages.training.learnt_body import some_weights
from tunemill.stages.training.machine_body import (
    Precision,
    check_attention,
    choose_precision,
    set_compiler,
    to_float8,
)
from tunemill.stages.training.memory_body import Offloading, fitting_memory, offloading_of
from tunemill.stages.training.method import Method, OwnLoss
from tunemill.stages.training.optimizers.averages_body import averages_used
from tunemill.stages.training.optimizers.build_body import (
    build_optimizer,
    check_optimizer_here,
    loading_allowed,
    trainers_name,
)
from tunemill.stages.training.optimizers.grokfast_body import Grokfast
from tunemill.stages.training.plugin_states_body import CallbackStates
from tunemill.stages.training.plugins_body import Plugins, own_plugins
from tunemill.stages.training.pruned_body import keep_zeros, settle
from tunemill.stages.training.quantization_aware_body import prepare
from tunemill.stages.training.saved_body import prove_saved
from tunemill.stages.training.schedule import (
    Schedule,
    due_steps,
    logging_interval,
    make_schedule,
    warmup_steps,
)
from tunemill.stages.training.schedules.build_body import build_scheduler
from tunemill.stages.training.start_body import start_of
from tunemill.stages.training.summary_body import summarize
from tunemill.stages.training.tiled_body import tile_mlps
from tunemill.stages.training.trace_body import write_metrics
from tunemill.stages.training.watch_body import watches_of


class LoopTrainer(Trainer):  # type: ignore[misc]
    """The Trainer, with the loss of a method that has its own, and what a model adds to either."""

    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        *,
        own_loss: OwnLoss | None,
        offloading: Offloading | LayerOffloading | None,
        make_optimizer: Callable[..., Any],
        make_scheduler: Callable[[Any, int], Any],
        plugins: Plugins,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.offloading = offloading
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

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The micro batches of a step; and for an own loss its counts over all of them, in place of a token count."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._own_loss is None:
            # The Trainer divides what the model adds by the number of micro batches, and the rest with it.
            return batches, items / len(batches) if self._model_adds and items is not None else items
        counts: dict[str, int] = {}
        for batch in batches:
            for name, count in self._own_loss.counts(batch).items():
                counts[name] = counts.get(name, 0) + count
        with self.compute_loss_context_manager():
            means = means_ahead(self._own_loss, self.model_wrapped, batches)
        return [{**batch, **means} for batch in batches] if means else batches, counts

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
        if self._own_loss is None:
            # By name: one of one's own may take the last as one of **kwargs, as transformers' own examples do.
            return super().compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        called = AddedLoss(model) if self._model_adds else model
        parts = self._own_loss.loss(called, inputs)
        counts: Mapping[str, int] = num_items_in_batch
        for name, (total, counted) in parts.metrics.items():
            if counts[counted]:
                self._sums[name] = self._sums.get(name, 0.0) + float(total) / counts[counted]
        loss = sum(total / counts[counted] for counted, total in parts.totals.items())
        return loss + called.mean / self.current_gradient_accumulation_steps if self._model_adds else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The step's own metrics stand beside its loss."""
        derived = {} if self._own_loss is None else self._own_loss.derived(self._sums)
        super().log({**logs, **self._sums, **derived}, start_time)
        self._sums = {}


def train(config: TrainingKeys, base_model: Model, method: Method, out: Workspace, report: Report) -> None:
    """Train, resuming from the last complete checkpoint, and write the model or the adapter.

    Raises SettingError for what this machine or model cannot honour, UserError where the loss breaks down or memory
    runs out.
    """

    def attempt(fitting: TrainingKeys) -> None:
        with own_plugins(fitting) as plugins:
            train_once(fitting, base_model, method, plugins, out, report)

    fitting_memory(attempt, config, report)


def train_once(
    config: TrainingKeys, base_model: Model, method: Method, plugins: Plugins, out: Workspace, report: Report
) -> None:
    """One attempt to train."""
    be_quiet()
    precision = choose_precision(config, has_factors=config.has_factors)
    check_here(config, precision)
    schedule = schedule_of(config, method)
    start = start_of(config, out.checkpoints, schedule.total, report)
    use_code_of(base_model.path)
    plugins.begin()
    model, stored_config = build_model(config, base_model, precision, plugins)
    for doubt in config.doubts():
        report.log(doubt)
    if config.head is None and balances_experts(plain_model(model)):
        keep_mask_for_balance(plain_model(model))
    keepers = choose_trained(config, model, config.seed, report)
    if config.looks_at_data:
        examined = Examined(method, method.collator(model), config.start_sequences, precision.autocast)
        keepers.append(start_from_data(config, model, examined, start, out.checkpoints, report))
    zeros = keep_zeros(config.llmcompressor, model, report)
    if config.qat is not None:
        keepers += prepare(config.qat, model, report)
    plugins.call("post_model_load", model)
    own = plugins.callbacks("add_callbacks_pre_trainer", model)
    interval = logging_interval(schedule.total, config.logging_steps)
    reporter = Reporter(report, schedule, method.examples, interval)
    watches = watches_of(config, schedule, out, report)
    monitor = monitor_of(config, schedule, method, report, reporter)
    best = best_of(config, monitor, out)
    monitors = [one for one in (monitor, best, rates_of(config, monitor, report)) if one is not None]
    offloading = offloading_of(config, out)
    waiting = layer_offloading_of(config, offloading, report)
    kept = kept_of(config, model, schedule, out, report)
    kept += method.prepare(model, precision, out.checkpoints)
    checkpoints = Checkpoints(report, out.checkpoints, save_steps(config, schedule), config.save_total_limit)
    collator = method.collator(model)
    warmup = warmup_steps(schedule.total, config.warmup_steps, config.warmup_ratio)
    UsedTrainer = plugins.over(LoopTrainer)  # noqa: N806 - a class
    trainer = UsedTrainer(
        own_loss=method.own_loss,
        make_optimizer=partial(build_optimizer, config, warmup=warmup),
        make_scheduler=partial(build_scheduler, config, warmup=warmup),
        plugins=plugins,
        offloading=waiting[0] if waiting else offloading,
        model=model,
        args=arguments(config, precision, schedule, out),
        train_dataset=method.examples,
        data_collator=collator,
        # The monitor goes before the checkpoints, and both after the reporter and whatever may touch a weight.
        callbacks=[reporter, *keepers, *zeros, *watches, *own, *waiting, *monitors, *kept, checkpoints],
    )
    trainer.remove_callback(PrinterCallback)
    own += plugins.meet(trainer, before=[*monitors, *kept, checkpoints][0])
    if own:
        kept.append(CallbackStates(out.checkpoints, own, save_steps(config, schedule), report))
        trainer.callback_handler.callbacks.insert(-1, kept[-1])
    set_compiler(config, trainer)
    check_loss(config, precision, trainer, method, report)
    kernels = add_kernels(config.kernel_choice, trainer.model, precision.autocast, report)
    method.check(trainer.model, collator)
    tiles = tile_mlps(trainer.model, config.tiled_mlp_num_shards, report) if config.tiled_mlp else None
    for one in kept:
        one.resume(None if start is None else Path(start))
    before = some_weights(trainer.model)
    with loading_allowed(config.optimizer):
        trainer.train(resume_from_checkpoint=start)
    if tiles is not None:
        tiles.undo()
    kernels.undo()
    with averages_used(trainer.optimizer):
        if best is not None:
            best.settle(trainer, report)
        settle(zeros, report)
        save(config, trainer.model, stored_config, base_model, out, report)
        if plugins:
            report.summary(**prove_saved(config, trainer.model, base_model, precision, out))
            plugins.call("post_train", trainer.model)
    write_metrics(trainer.state.log_history, out.logs)
    summarize(trainer, schedule, reporter, monitor, before, report)


def check_here(config: TrainingKeys, precision: Precision) -> None:
    """Raise SettingError for what this machine cannot compute."""
    check_attention(config)
    check_optimizer_here(config.optimizer, precision)
    check_kernels_here(config.kernel_choice)


def kept_of(
    config: TrainingKeys, model: Any, schedule: Schedule, out: Workspace, report: Report
) -> list[Any]:
    """What changes gradients or weights beside the optimizer, and is kept in checkpoints."""
    kept: list[Any] = [] if config.grokfast is None else [Grokfast(out.checkpoints, *config.grokfast)]
    if config.relora:
        kept.append(Restarts(config, model, config.seed, out.checkpoints, schedule.total, report))
    return kept


def schedule_of(config: TrainingKeys, method: Method) -> Schedule:
    """The steps of the training. Raises UserError where there is nothing to train on."""
    if not len(method.examples):
        raise UserError(
            "the training data has no row to train on. Look at the datasets' filters and at sequence_len."
        )
    return make_schedule(
        len(method.examples),
        config.micro_batch_size,
        config.gradient_accumulation_steps,
        config.num_epochs,
        config.max_steps,
    )


def build_model(
    config: TrainingKeys, base_model: Model, precision: Precision, plugins: Plugins
) -> tuple[Any, dict[str, Any]]:
    """The model to train, and what its config says of caching: training switches that off."""
    attention = {"attn_implementation": config.attention} if config.attention else {}
    compute_type = precision.autocast or precision.weights
    settings = {"dtype": precision.weights, "compute_type": compute_type, **attention}
    if config.head is None:
        model = load_causal_lm(base_model.path, **settings)
    else:
        model = load_model(base_model.path, config.head, seed=config.seed, **settings)
    stored = {"use_cache": model.config.use_cache}
    if is_quantized(base_model.path):
        check_quantized(config, model)
    linearize_experts(config, model)
    set_experts(config, model)
    set_generation_aside(model)
    train_every_row(model)
    if precision.fp8:
        to_float8(model)
    plugins.call("post_model_build", model)
    if config.adapter is not None:
        plugins.call("pre_lora_load", model)
        model = add_adapter(config, model, config.seed)
        plugins.call("post_lora_load", model)
    if config.quantize_moe_experts:
        hold_experts_packed(base_model.path, model)
    if config.checkpoints_reentrantly:
        # A reentrant checkpoint passes no gradient on where its input, here the frozen embedding, has none.
        model.enable_input_require_grads()
    return model, stored


def arguments(
    config: TrainingKeys, precision: Precision, schedule: Schedule, out: Workspace
) -> TrainingArguments:
    """The settings in the Trainer's names."""
    made = TrainingArguments(
        output_dir=str(out.checkpoints),
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        num_train_epochs=config.num_epochs,
        max_steps=schedule.total,
        learning_rate=config.learning_rate,
        optim=trainers_name(config.optimizer),
        max_grad_norm=config.max_grad_norm,
        neftune_noise_alpha=config.neftune_noise_alpha,
        seed=config.seed,
        bf16=precision.bf16,
        fp16=precision.fp16,
        tf32=config.tf32,
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs=config.gradient_checkpointing_kwargs or {"use_reentrant": False},
        torch_compile=bool(config.torch_compile),
        torch_compile_backend=config.torch_compile_backend if config.torch_compile else None,
        torch_compile_mode=config.torch_compile_mode if config.torch_compile else None,
        torch_empty_cache_steps=config.empties_cache,
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=config.dataloader_num_workers,
        dataloader_pin_memory=config.dataloader_pin_memory and torch.cuda.is_available(),
        dataloader_prefetch_factor=config.prefetch_factor,
        # The examples bring their own order.
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        # Every step is logged to the reporter; saving and evaluating are the callbacks' business.
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )
    if made.n_gpu > 1:
        # With several GPUs and one process the Trainer would split each batch by DataParallel and change the loss.
        made._n_gpu = 1
    return made


def check_loss(
    config: TrainingKeys, precision: Precision, trainer: LoopTrainer, method: Method, report: Report
) -> None:
    """Count what the model adds to the loss; refuse one that would compute another loss than the one asked for."""
    assert trainer.model.config.use_cache is False, "with a cache, packed rows see each other"
    plain = plain_model(trainer.model)
    if config.head is not None:
        # Its loss is the method's, and transformers adds no balance of experts where there is no output head.
        assert method.own_loss is not None, "what scores are for is the method's to say"
        if balances_experts(plain):
            report.log(
                f"{type(plain).__name__} adds no balance of experts to the loss: only language models do"
            )
        return
    found = probe_loss(plain, trainer.model_accepts_loss_kwargs, precision.autocast)
    averages = method.own_loss is None and not found.divides_by_items
    if config.gradient_accumulation_steps > 1 and averages:
        raise SettingError(
            f"gradient_accumulation_steps: {type(plain).__name__} averages the loss over each micro batch, so "
            f"accumulated steps would weigh tokens differently. Use gradient_accumulation_steps: 1."
        )
    if found.adds:
        check_added_loss(plain, precision.autocast, config.checkpoints_reentrantly)
        trainer.count_added_loss()
        report.log(
            f"{type(plain).__name__} adds the balance of its experts to the loss (output_router_logits): of a step, "
            f"the mean over its micro batches, without padding"
        )


def save_steps(config: TrainingKeys, schedule: Schedule) -> frozenset[int]:
    """The steps after which a checkpoint is written."""
    if not config.chosen_optimizer.keeps_state:
        return frozenset()
    first = frozenset({1} if config.save_first_step else ())
    return first | due_steps(
        schedule,
        every=config.save_steps or None,
        per_epoch=config.saves_per_epoch or None,
        strategy=None if config.save_strategy == "best" else config.save_strategy,
        default="epoch",
    )


def monitor_of(
    config: TrainingKeys, schedule: Schedule, method: Method, report: Report, reporter: Reporter
) -> Monitor | None:
    """What evaluates while training; None where nothing is due, or no row is held out."""
    due = due_steps(
        schedule,
        every=config.eval_steps or None,
        per_epoch=config.evals_per_epoch or None,
        strategy=config.eval_strategy,
        default="epoch" if config.held_out_rows_decide else "no",
    )
    if not due or method.score is None:
        return None
    return Monitor(report, due, method.score, reporter.skip)


def save(
    config: TrainingKeys,
    model: Any,
    stored_config: dict[str, Any],
    base_model: Model,
    out: Workspace,
    report: Report,
) -> None:
    """Write the adapter or the model, with the tokenizer."""
    if config.adapter is not None:
        save_adapter(config, model, out.data)
        if model.rounding is not None:
            tell_rounding(model.rounding, report)
        if model.first_factors or model.folded or model.rounded_through:
            name = "relora_logit_difference" if model.folded else "start_logit_difference"
            report.summary(**{name: prove_start(model, base_model.path, out.data)})
    else:
        for name, value in stored_config.items():
            setattr(model.config, name, value)
        model.save_pretrained(out.data)
        forget_versions(out.data)
        keep_generation(base_model.path, out.data)
    copy_tokenizer(base_model.path, out.data)
    check_same_tokenizer(base_model.path, out.data)
