"""The training loop, whatever the method: model, examples and settings go into the Trainer, weights come out."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainingArguments

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
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.adapters.add_body import add_adapter, save_adapter
from tunemill.stages.training.adapters.from_data_body import Examined, start_from_data
from tunemill.stages.training.adapters.linearized_body import linearize_experts
from tunemill.stages.training.adapters.loftq_body import tell_rounding
from tunemill.stages.training.adapters.quantized_base_body import (
    check_quantized,
    check_quantized_parts,
    hold_experts_packed,
)
from tunemill.stages.training.adapters.relora_body import Restarts
from tunemill.stages.training.adapters.starts_body import prove_start
from tunemill.stages.training.added_loss_body import (
    balances_experts,
    check_added_loss,
    keep_mask_for_balance,
    probe_loss,
)
from tunemill.stages.training.background_body import background_of
from tunemill.stages.training.best_body import Best, best_of, rates_of
from tunemill.stages.training.callbacks_body import Checkpoints, Monitor, Reporter
from tunemill.stages.training.context_body import (
    check_splits,
    check_splits_loss,
    check_splits_mean,
    prove_exchange,
)
from tunemill.stages.training.embeddings_body import train_every_row
from tunemill.stages.training.experts_body import set_experts
from tunemill.stages.training.frozen_body import choose_trained
from tunemill.stages.training.gathered_body import forget_gathered, gathered
from tunemill.stages.training.kernels.insert_body import add_kernels, check_kernels_here
from tunemill.stages.training.keys.in_parts import DEEPSPEED_EXTRA, lacks_deepspeed
from tunemill.stages.training.keys.kernels import NONE_CHOSEN
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.layer_offloading_body import layer_offloading_of
from tunemill.stages.training.learnt_body import some_weights
from tunemill.stages.training.machine_body import (
    Precision,
    check_attention,
    choose_precision,
    set_compiler,
    to_float8,
)
from tunemill.stages.training.memory_body import fitting_memory, offloading_of
from tunemill.stages.training.method import Method
from tunemill.stages.training.optimizers.averages_body import averages_used
from tunemill.stages.training.optimizers.build_body import (
    build_optimizer,
    check_optimizer_here,
    loading_allowed,
    trainers_name,
)
from tunemill.stages.training.optimizers.grokfast_body import Grokfast
from tunemill.stages.training.parts_body import check_readable
from tunemill.stages.training.plugin_states_body import keep_states
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
from tunemill.stages.training.sharding_body import (
    arguments_of,
    check_parts,
    compute_under_autocast,
    has_weights,
    join,
    loading,
)
from tunemill.stages.training.shares import Share
from tunemill.stages.training.start_body import start_of, with_checkpoints_of_all
from tunemill.stages.training.summary_body import summarize
from tunemill.stages.training.tiled_body import tile_mlps
from tunemill.stages.training.trace_body import write_metrics
from tunemill.stages.training.trainer_body import LoopTrainer
from tunemill.stages.training.watch_body import watches_of


def train(config: TrainingKeys, base_model: Model, method: Method, out: Workspace, report: Report) -> None:
    """Train, resuming from the last complete checkpoint, and write the model or the adapter.

    Raises SettingError for what this machine or model cannot honour, UserError where the loss breaks down or memory
    runs out.
    """

    def attempt(fitting: TrainingKeys) -> None:
        with own_plugins(fitting) as plugins:
            train_once(fitting, base_model, method, plugins, out, report)

    ranks.meet(config.ddp_timeout)
    out = with_checkpoints_of_all(out, report)
    fitting_memory(attempt, config, report)


def train_once(
    config: TrainingKeys, base_model: Model, method: Method, plugins: Plugins, out: Workspace, report: Report
) -> None:
    """One attempt to train."""
    be_quiet()
    join(config.sharding)
    precision = choose_precision(config, has_factors=config.has_factors)
    check_here(config, precision)
    schedule = schedule_of(config, method)
    share = share_of(config, schedule)
    start = start_of(config, out.checkpoints, schedule.total, report)
    use_code_of(base_model.path)
    plugins.begin()
    model, stored_config = shared_model(config, start, base_model, precision, plugins, report)
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
    kept = kept_of(config, model, schedule, out, report) + method.prepare(model, precision, out.checkpoints)
    saves, background = save_steps(config, schedule), background_of(config)
    checkpoints = Checkpoints(report, out.checkpoints, saves, limit_of(config, out), background)
    collator = method.collator(model)
    warmup = warmup_steps(schedule.total, config.warmup_steps, config.warmup_ratio)
    UsedTrainer = plugins.over(LoopTrainer)  # noqa: N806 - a class
    trainer = UsedTrainer(
        own_loss=method.own_loss,
        share=share,
        make_optimizer=partial(build_optimizer, config, warmup=warmup),
        make_scheduler=partial(build_scheduler, config, warmup=warmup),
        plugins=plugins,
        background=background,
        sharding=config.sharding,
        offloading=waiting[0] if waiting else offloading,
        model=model,
        args=arguments(config, precision, share, out),
        train_dataset=method.examples,
        data_collator=collator,
        # The monitor goes before the checkpoints, and both after the reporter and whatever may touch a weight.
        callbacks=[reporter, *keepers, *zeros, *watches, *own, *waiting, *monitors, *kept, checkpoints],
    )
    trainer.remove_callback(PrinterCallback)
    own += plugins.meet(trainer, before=[*monitors, *kept, checkpoints][0])
    kept += keep_states(trainer, own, out.checkpoints, saves, report)
    set_compiler(config, trainer)
    check_loss(config, precision, trainer, method, report)
    changes = change_forward(
        config, trainer.model, precision, partial(method.check, trainer.model, collator), report
    )
    for one in kept:
        one.resume(None if start is None else Path(start))
    before = some_weights(trainer.model)
    with loading_allowed(config.optimizer):
        trainer.train(resume_from_checkpoint=start)
    for changed in reversed(changes):
        changed.undo()
    with averages_used(trainer.optimizer):
        settle_best(best, zeros, trainer, report)
        save(config, trainer.model, stored_config, base_model, out, report)
        if plugins:
            report.summary(**prove_saved(config, trainer.model, base_model, precision, out))
            plugins.call("post_train", trainer.model)
    write_metrics(trainer.state.log_history, out.logs)
    summarize(trainer, schedule, reporter, monitor, before, report)


def settle_best(best: Best | None, zeros: list[Any], trainer: LoopTrainer, report: Report) -> None:
    """The weights are those that are stored, whichever step's they are."""
    if best is not None:
        best.settle(trainer, report)
    settle(zeros, report)


def shared_model(
    config: TrainingKeys,
    start: str | None,
    base_model: Model,
    precision: Precision,
    plugins: Plugins,
    report: Report,
) -> tuple[Any, dict[str, Any]]:
    """As `build_model`, where processes may share it. Raises SettingError for a checkpoint that they cannot read."""
    sharding = config.sharding
    check_readable(start, sharding, config.optimizer, config.resume_from_checkpoint)
    with loading(sharding):
        found = build_model(config, base_model, precision, plugins)
    check_parts(sharding, found[0])
    check_splits(sharding, plain_model(found[0]))
    check_quantized_parts(sharding, found[0], report)
    return found


def change_forward(
    config: TrainingKeys, model: Any, precision: Precision, check: Callable[[], None], report: Report
) -> list[Any]:
    """Put what computes faster or smaller into the model, and `check` it; what came of it is undone after training."""
    sharding = config.sharding
    chosen = NONE_CHOSEN if sharding.in_parts else config.kernel_choice
    kernels = add_kernels(chosen, model, precision.autocast, report)
    if has_weights(sharding):
        check()
    compute_under_autocast(sharding, model, precision.autocast)
    tiles = [tile_mlps(model, config.tiled_mlp_num_shards, report)] if config.tiled_mlp else []
    return [kernels, *tiles]


def check_here(config: TrainingKeys, precision: Precision) -> None:
    """Raise SettingError for what this machine cannot compute."""
    check_attention(config)
    check_optimizer_here(config.optimizer, precision)
    check_kernels_here(config.kernel_choice)
    if lacks_deepspeed(config):
        raise SettingError(DEEPSPEED_EXTRA)
    prove_exchange(config.sharding, precision)


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


def share_of(config: TrainingKeys, schedule: Schedule) -> Share:
    """What this process trains of each step. Raises SettingError where a step cannot be shared evenly."""
    together = config.sharding.context
    rank, part = divmod(ranks.number(), together)
    share = Share(schedule, config.micro_batch_size, ranks.count() // together, rank, together, part)
    if config.gradient_accumulation_steps % share.ranks:
        raise SettingError(
            f"a step has {config.gradient_accumulation_steps} micro batches, which {share.ranks} processes cannot "
            f"share evenly. Use a number of processes that divides it."
        )
    return share


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


def arguments(config: TrainingKeys, precision: Precision, share: Share, out: Workspace) -> TrainingArguments:
    """The settings in the Trainer's names."""
    made = arguments_of(
        config.sharding,
        precision,
        output_dir=str(out.checkpoints),
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=share.accumulation,
        num_train_epochs=config.num_epochs,
        max_steps=share.schedule.total,
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
        **(exchange_of(config) if share.processes > 1 else {}),
    )
    if made.n_gpu > 1:
        # With several GPUs and one process the Trainer would split each batch by DataParallel and change the loss.
        made._n_gpu = 1
    return made


def exchange_of(config: TrainingKeys) -> dict[str, Any]:
    """How several processes exchange gradients, in the Trainer's names."""
    return {
        "ddp_timeout": config.ddp_timeout or ranks.SECONDS,
        "ddp_bucket_cap_mb": config.ddp_bucket_cap_mb,
        # They hold what is computed from the config, and change with no step.
        "ddp_broadcast_buffers": bool(config.ddp_broadcast_buffers),
        "ddp_find_unused_parameters": config.ddp_find_unused_parameters,
        # The loop counts by itself what a step has, and what of it each process computes.
        "average_tokens_across_devices": False,
    }


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
    if averages:
        check_splits_mean(config.sharding, plain)
    if config.gradient_accumulation_steps > 1 and averages:
        raise SettingError(
            f"gradient_accumulation_steps: {type(plain).__name__} averages the loss over each micro batch, so "
            f"accumulated steps would weigh tokens differently. Use gradient_accumulation_steps: 1."
        )
    if found.adds:
        check_splits_loss(config.sharding, plain)
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


def limit_of(config: TrainingKeys, out: Workspace) -> int | None:
    """How many checkpoints are kept; None where another process removes the older ones."""
    return config.save_total_limit if ranks.tidies(out.checkpoints) else None


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
    """Write the adapter or the model, with the tokenizer: the first process, with what it gets of the others."""
    weights = gathered(config, model, out)
    if not ranks.is_first():
        return
    if config.adapter is not None:
        save_adapter(config, model, out.data, weights)
        if model.rounding is not None:
            tell_rounding(model.rounding, report)
        if model.first_factors or model.folded or model.rounded_through:
            name = "relora_logit_difference" if model.folded else "start_logit_difference"
            report.summary(**{name: prove_start(model, base_model.path, out.data)})
    else:
        for name, value in stored_config.items():
            setattr(model.config, name, value)
        model.save_pretrained(out.data, state_dict=weights)
        forget_gathered(out)
        forget_versions(out.data)
        keep_generation(base_model.path, out.data)
    copy_tokenizer(base_model.path, out.data)
    check_same_tokenizer(base_model.path, out.data)
