"""Supervised fine-tuning: model, data and settings go into the Hugging Face Trainer, weights come out."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments

from tunemill.stages.artifacts import EvaluationData, Model, TrainingData
from tunemill.stages.base_model.files import copy_tokenizer, forget_versions
from tunemill.stages.base_model.quiet_body import be_quiet
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.evaluation.loss_body import RowLoss, mean_loss, row_losses
from tunemill.stages.evaluation.packed_loss_body import packed_row_losses
from tunemill.stages.evaluation.rows import Rows
from tunemill.stages.report import Report, Workspace
from tunemill.stages.trained.adapter_body import add_adapter, save_adapter
from tunemill.stages.trained.callbacks_body import Checkpoints, Monitor, Reporter
from tunemill.stages.trained.checkpoints import last_complete
from tunemill.stages.trained.config import TrainedConfig
from tunemill.stages.trained.kernels_body import add_kernels, check_kernels_here
from tunemill.stages.trained.machine_body import Precision, check_attention, choose_precision
from tunemill.stages.trained.schedule import (
    Schedule,
    due_steps,
    logging_interval,
    make_schedule,
    warmup_steps,
)
from tunemill.stages.trained.sequences_body import Collator, Sequences, rows_leak


def train(
    config: TrainedConfig,
    base_model: Model,
    training_data: TrainingData,
    evaluation_data: EvaluationData | None,
    out: Workspace,
    report: Report,
) -> None:
    """Train, resuming from the last complete checkpoint, and write the model or the adapter.

    Raises SettingError for what this machine or model cannot honour, UserError where the loss breaks down.
    """
    be_quiet()
    precision = choose_precision(config)
    check_attention(config)
    check_kernels_here(config)
    per_step = config.micro_batch_size * config.gradient_accumulation_steps
    sequences = Sequences(
        training_data.rows,
        training_data.packs,
        config.seed,
        group=per_step if config.group_by_length else None,
        keep_order=config.curriculum_sampling,
    )
    if not len(sequences):
        raise UserError(
            "the training data has no row to train on. Look at the datasets' filters and at sequence_len."
        )
    schedule = make_schedule(
        len(sequences),
        config.micro_batch_size,
        config.gradient_accumulation_steps,
        config.num_epochs,
        config.max_steps,
    )
    model, stored_config = _load(config, base_model, precision)
    reporter = Reporter(report, schedule, sequences, logging_interval(schedule.total, config.logging_steps))
    monitor = _monitor(config, schedule, evaluation_data, report, reporter)
    saves = due_steps(
        schedule,
        every=config.save_steps,
        per_epoch=config.saves_per_epoch,
        strategy=config.save_strategy,
        default="epoch",
    )
    checkpoints = Checkpoints(out.checkpoints, saves, config.save_total_limit)
    monitors = [] if monitor is None else [monitor]
    collator = _collator(config, model)
    trainer = Trainer(
        model=model,
        args=_arguments(config, precision, schedule, out),
        train_dataset=sequences,
        data_collator=collator,
        # The monitor goes before the checkpoints, and both after the reporter.
        callbacks=[reporter, *monitors, checkpoints],
    )
    trainer.remove_callback(PrinterCallback)
    kernels = add_kernels(config, trainer.model, precision.autocast, report)
    _check_model(config, trainer, collator)
    checkpoint = last_complete(out.checkpoints)
    if checkpoint is not None:
        report.log(f"resuming from {checkpoint.name} of {schedule.total} steps")
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    kernels.undo()
    _save(config, trainer.model, stored_config, base_model, out)
    _summarize(trainer, schedule, reporter, monitor, report)


def _load(config: TrainedConfig, base_model: Model, precision: Precision) -> tuple[Any, dict[str, Any]]:
    """The model to train, and what its config says of caching: training switches that off."""
    arguments = {"attn_implementation": config.attention} if config.attention else {}
    model = AutoModelForCausalLM.from_pretrained(base_model.path, dtype=precision.weights, **arguments)
    stored = {"use_cache": model.config.use_cache}
    if config.adapter is not None:
        model = add_adapter(config, model)
    if config.gradient_checkpointing and (config.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        # A reentrant checkpoint passes no gradient on where its input, here the frozen embedding, has none.
        model.enable_input_require_grads()
    return model, stored


def _collator(config: TrainedConfig, model: Any) -> Collator:
    """Raises SettingError for batches that flash attention would read as one row each."""
    pad_to = config.sequence_len if config.pads_to_sequence_len else None
    multiple = config.pad_to_multiple_of or 1
    is_flash = str(model.config._attn_implementation).startswith("flash")
    if config.sample_packing:
        real = config.multipack_real_batches
        if real and is_flash and config.micro_batch_size > 1:
            raise SettingError(
                "multipack_real_batches: true: flash attention keeps packed rows apart in a batch of one only. Remove "
                "it, or use micro_batch_size: 1."
            )
        return Collator("flat" if (is_flash if real is None else not real) else "packed", pad_to, multiple)
    flattens = config.batch_flattening is True or (config.batch_flattening == "auto" and is_flash)
    return Collator("flat" if flattens and pad_to is None else "padded", pad_to, multiple)


def _arguments(
    config: TrainedConfig, precision: Precision, schedule: Schedule, out: Workspace
) -> TrainingArguments:
    scheduler, scheduler_kwargs = config.lr_scheduler, config.lr_scheduler_kwargs or {}
    if config.cosine_min_lr_ratio is not None:
        scheduler, scheduler_kwargs = "cosine_with_min_lr", {"min_lr_rate": config.cosine_min_lr_ratio}
    warmup = warmup_steps(schedule.total, config.warmup_steps, config.warmup_ratio)
    optim_args = ",".join(f"{name}={value}" for name, value in sorted(config.optimizer_arguments.items()))
    adam = {
        "adam_beta1": config.adam_beta1,
        "adam_beta2": config.adam_beta2,
        "adam_epsilon": config.adam_epsilon,
    }
    arguments = TrainingArguments(
        output_dir=str(out.checkpoints),
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        num_train_epochs=config.num_epochs,
        max_steps=schedule.total,
        learning_rate=config.learning_rate,
        lr_scheduler_type=scheduler,
        lr_scheduler_kwargs=scheduler_kwargs,
        warmup_steps=warmup,
        optim=config.optimizer,
        optim_args=optim_args or None,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        neftune_noise_alpha=config.neftune_noise_alpha,
        seed=config.seed,
        bf16=precision.bf16,
        fp16=precision.fp16,
        tf32=config.tf32,
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs=config.gradient_checkpointing_kwargs or {"use_reentrant": False},
        torch_compile=bool(config.torch_compile),
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=config.dataloader_num_workers,
        dataloader_pin_memory=config.dataloader_pin_memory and torch.cuda.is_available(),
        dataloader_prefetch_factor=config.dataloader_prefetch_factor,
        # The data set brings its own order.
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
        **{name: value for name, value in adam.items() if value is not None},
    )
    if arguments.n_gpu > 1:
        # With several GPUs and one process the Trainer would split each batch by DataParallel and change the loss.
        arguments._n_gpu = 1
    return arguments


def _check_model(config: TrainedConfig, trainer: Any, collator: Collator) -> None:
    """Refuse a model that would compute another loss than the one asked for, without saying so."""
    model = trainer.model
    assert model.config.use_cache is False, "with a cache, packed rows see each other"
    name = type(model.get_base_model() if config.adapter else model).__name__
    if config.gradient_accumulation_steps > 1 and not trainer.model_accepts_loss_kwargs:
        raise SettingError(
            f"gradient_accumulation_steps: {name} averages the loss over each micro batch, so accumulated steps would "
            f"weigh tokens differently. Use gradient_accumulation_steps: 1."
        )
    if collator.layout == "padded":
        return
    key = "sample_packing" if config.sample_packing else "batch_flattening"
    plain = model.get_base_model() if config.adapter else model
    was_training = model.training
    model.eval()
    takes_positions = "position_ids" in inspect.signature(plain.forward).parameters
    if not takes_positions or rows_leak(plain, trainer.args.device):
        raise SettingError(
            f"{key}: in {name} the rows of a sequence see each other (it does not read position_ids as borders). "
            f"Set {key}: false."
        )
    model.train(was_training)


def _monitor(
    config: TrainedConfig,
    schedule: Schedule,
    evaluation_data: EvaluationData | None,
    report: Report,
    reporter: Reporter,
) -> Monitor | None:
    due = due_steps(
        schedule,
        every=config.eval_steps,
        per_epoch=config.evals_per_epoch,
        strategy=config.eval_strategy,
        default="no",
    )
    if not due:
        return None
    if evaluation_data is None:
        raise SettingError(
            "eval_steps, evals_per_epoch or eval_strategy ask for evaluations, but there are no held-out rows. Set "
            "test_datasets or val_set_size, or remove these keys."
        )
    rows = Rows(evaluation_data.rows)
    losses = packed_row_losses if config.eval_sample_packing else row_losses
    batch_size = config.eval_batch_size or config.micro_batch_size
    score = partial(_held_out_loss, rows=rows, batch_size=batch_size, losses=losses)
    return Monitor(report, due, score, reporter.skip)


def _held_out_loss(
    model: Any, rows: Rows, batch_size: int, losses: Callable[[Any, Rows, Sequence[int], int], list[RowLoss]]
) -> float:
    return mean_loss(losses(model, rows, range(len(rows)), batch_size))


def _save(
    config: TrainedConfig, model: Any, stored_config: dict[str, Any], base_model: Model, out: Workspace
) -> None:
    if config.adapter is not None:
        save_adapter(model, out.data)
    else:
        for name, value in stored_config.items():
            setattr(model.config, name, value)
        model.save_pretrained(out.data)
        forget_versions(out.data)
    copy_tokenizer(base_model.path, out.data)


def _summarize(
    trainer: Any, schedule: Schedule, reporter: Reporter, monitor: Monitor | None, report: Report
) -> None:
    # The Trainer keeps its log in the checkpoints, so the curve of a resumed run starts at step 1.
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    numbers = [entry["step"] for entry in steps]
    losses = [entry["loss"] for entry in steps]
    report.summary(
        train_loss=sum(losses) / len(losses),
        last_loss=losses[-1],
        steps=trainer.state.global_step,
        epochs=trainer.state.global_step / schedule.steps_per_epoch,
        tokens_per_second=reporter.tokens / max(reporter.seconds, 1e-9),
        trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
    )
    report.plot("Training loss", numbers, losses, x_label="step", y_label="loss (nats per token)")
    rates = [entry["learning_rate"] for entry in steps]
    report.plot("Learning rate", numbers, rates, x_label="step", y_label="learning rate")
    if monitor is not None and monitor.losses:
        report.summary(last_eval_loss=list(monitor.losses.values())[-1])
        report.plot("Held-out loss", list(monitor.losses), list(monitor.losses.values()), x_label="step",
                    y_label="loss (nats per token)")  # fmt: skip
