"""How much memory a training will take: its first steps over tensors that have shapes and no numbers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig

from tunemill.stages.artifacts import Adapter
from tunemill.stages.errors import UserError
from tunemill.stages.memory import Above, Estimate, Saving, beside_server, read_above, write_estimate
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.accounts_body import ACTIVATIONS, GRADIENTS, LOGITS, WEIGHTS, Accounts
from tunemill.stages.training.batch_shapes_body import BatchShape, batch_shape
from tunemill.stages.training.keys.reference import ReferenceKeys
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.layer_offloading_body import LAYERS_AT_ONCE, waiting_bytes
from tunemill.stages.training.machine_body import Precision, choose_precision
from tunemill.stages.training.optimizers.groups_body import embedding_parameters, parameter_groups
from tunemill.stages.training.optimizers.state_bytes import IN_MAIN_MEMORY, state_bytes
from tunemill.stages.training.optimizers.table import OPTIMIZERS
from tunemill.stages.training.shapes_body import (
    build_model,
    capacity_of,
    from_shapes_alone,
    kept_elsewhere,
    losses_of,
    place,
    this_device,
)

# What `adapter: lora` is taken to mean where the question is what it would save.
ADAPTER = {"adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True}

# A setting that saves a smaller share is not worth turning.
WORTH = 0.01


@dataclass(frozen=True)
class Plan:
    """What is trained and how. `bits`: of the frozen base's linear layers, 16 where they are as loaded."""

    config: TrainingKeys
    model_config: Any
    shape: BatchShape
    bits: int
    double_quant: bool
    losses: Callable[[TrainingKeys, Any, BatchShape], tuple[Any, Any]] = losses_of
    """The loss of a micro batch, and its logits where there are all of them."""
    answering: Callable[["Plan", Any], int] | None = None
    """Bytes that the model takes between steps, beside its weights, to answer; None: it answers nothing."""
    share_of_server: float = 0.0
    """Of a GPU's memory, what a server takes that answers beside the training."""


def estimate(config: TrainingKeys, out: Workspace, report: Report) -> None:
    """Estimate for the settings and for each that would save, with what `out` holds of the nodes above.

    Raises UserError where the model's config is not there, SettingError for what this machine cannot honour.
    """
    plan, notes = plan_of(config, read_above(out.data))
    tell(plan, notes, out, report)


def tell(plan: Plan, notes: Sequence[str], out: Workspace, report: Report) -> None:
    """Leave the estimate of a plan, and of the settings that would save."""
    be_quiet()
    with from_shapes_alone(plan.model_config):
        found = measured(plan)
        savings = []
        for name, other in variants(plan):
            savings.append(Saving(name, found.total - measured(other).total))
            report.progress(len(savings), None, "estimates")
    worth = sorted((one for one in savings if one.saved > WORTH * found.total), key=lambda one: -one.saved)
    write_estimate(out.data, replace(found, savings=worth, notes=notes))


def plan_of(
    config: TrainingKeys, above: Mapping[str, Above], given: tuple[BatchShape, list[str]] | None = None
) -> tuple[Plan, list[str]]:
    """What is to be estimated, and what was taken for what cannot be known yet. `given`: the shape of a micro batch."""
    model_config = read_config(above)
    bits, double_quant = quantization(above, model_config)
    config = with_stored_adapter(config, above)
    shape, notes = given or batch_shape(config, above)
    return Plan(config, model_config, shape, bits, double_quant), [*notes, *uncounted(config)]


def with_stored_adapter(config: TrainingKeys, above: Mapping[str, Above]) -> TrainingKeys:
    """The config with the adapter that another node gives. Raises UserError where it is not on this machine yet."""
    if not config.has_stored_adapter:
        return config
    given = next((one.folder for edge, one in above.items() if edge.endswith(".stored_adapter")), None)
    if given is None:
        raise UserError(
            "lora_model_dir: its adapter is not on this machine yet. Run the pipeline with `--only adapter_files` "
            "first, or the one that makes it."
        )
    return config.going_on_from(Adapter(Path(given)))


def uncounted(config: TrainingKeys) -> Iterator[str]:
    """The settings that save or take memory in ways that are not told from shapes."""
    if config.llmcompressor is not None:
        yield "llmcompressor: of each number of its targets a byte says whether it is zero, which is not counted"
    if config.spectrum_top_fraction is not None:
        yield "spectrum_top_fraction chooses by the weights, which are not read: all count as trained"
    if config.layer_offloading and torch.cuda.is_available():
        yield (
            "layer_offloading: all weights are on the device once, while the model is loaded; while it trains, those "
            f"of {LAYERS_AT_ONCE} layers"
        )
    if config.tiled_mlp:
        yield "tiled_mlp saves activations, which is not counted"


def read_config(above: Mapping[str, Above]) -> Any:
    """The config of the model, with the YAML's overrides. Raises UserError where it is not on this machine."""
    base = above.get("base_model", Above({}))
    given = base.settings
    made, fetched = base.folder, above.get("base_model.upstream", Above({})).folder
    named = given.get("base_model_config") or given.get("base_model")
    folders = [made, given.get("base_model_config"), fetched, given.get("base_model")]
    if (config_files := above.get("base_model.config_files")) is not None:
        named, folders = config_files.settings.get("repository"), [made, config_files.folder]
    folder = next((one for one in folders if one and (Path(one) / "config.json").is_file()), None)
    if folder is None:
        raise UserError(
            f"base_model{f': {named}' if named else ''}: its config.json is not on this machine yet. Run the pipeline "
            f"with `--only base_model` first, which fetches the model, or name a local folder."
        )
    overrides = {} if folder == made else {
        **(given.get("overrides_of_model_config") or {}), **(given.get("overrides_of_model_kwargs") or {})
    }  # fmt: skip
    try:
        config = AutoConfig.from_pretrained(folder, **overrides)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"base_model: {folder}: its config.json cannot be read: {error}") from error
    return config.get_text_config()


def quantization(above: Mapping[str, Above], model_config: Any) -> tuple[int, bool]:
    """Bits of the frozen weights, and whether their scales are in 8 bits; what the folder says goes first."""
    given: dict[str, Any] = dict(getattr(model_config, "quantization_config", None) or {})
    if hasattr(model_config, "quantization_config"):
        del model_config.quantization_config
    settings = above["quantized_base"].settings if "quantized_base" in above else given
    top = {key: value for key, value in settings.items() if value is not None}
    asked = {**(settings.get("bnb_config_kwargs") or {}), **top}
    bits = 4 if asked.get("load_in_4bit") else 8 if asked.get("load_in_8bit") else 16
    double = asked.get("bnb_4bit_use_double_quant")
    return bits, bool(double) or ("quantized_base" in above and double is None)


def variants(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """The settings that may save, each with the plan in which it alone is turned."""

    def turned(**settings: Any) -> Plan:
        return replace(plan, config=plan.config.model_copy(update=settings))

    config = plan.config
    if config.micro_batch_size > 1:
        count = config.micro_batch_size
        flat = plan.shape.rows < count
        shape = replace(
            plan.shape,
            rows=1 if flat else plan.shape.rows // count,
            length=plan.shape.length // (count if flat else 1),
        )
        yield (
            "micro_batch_size: 1 (with gradient_accumulation_steps to match)",
            replace(turned(micro_batch_size=1), shape=shape),
        )
    if not config.gradient_checkpointing:
        yield "gradient_checkpointing: true", turned(gradient_checkpointing=True)
    if getattr(config, "chunked_cross_entropy", None) is False:
        yield "chunked_cross_entropy: true", turned(chunked_cross_entropy=True)
    offloads = config.layer_offloading or config.fault_of_layer_offloading is not None
    if torch.cuda.is_available() and not offloads:
        yield "layer_offloading: true", turned(layer_offloading=True)
    if not config.optimizer.endswith(("8bit", "4bit")):
        yield (
            "optimizer: adamw_8bit",
            turned(optimizer="adamw_8bit", optim_args=None, optim_target_modules=None),
        )
    answers = getattr(config, "num_generations", 0)
    if plan.answering is not None and getattr(config, "completions_at_once", 0) > answers:
        yield f"pipeline.completions_at_once: {answers}", turned(completions_at_once=answers)
    follows = isinstance(config, ReferenceKeys) and config.sync_ref_model
    if isinstance(config, ReferenceKeys) and config.holds_a_copy and not follows:
        yield "without precompute_ref_log_probs: false", turned(precompute_ref_log_probs=None)
    # A reference that follows has to be a copy.
    adapts = config.adapter is None and not follows
    if adapts:
        yield "adapter: lora (lora_r: 16, every linear layer)", turned(**ADAPTER)
    if plan.bits > 4 and (config.has_factors or adapts):
        name = (
            "load_in_4bit: true" if config.adapter else "adapter: qlora and load_in_4bit: true (lora_r: 16)"
        )
        quantized = plan if config.adapter else turned(**ADAPTER)
        yield name, replace(quantized, bits=4, double_quant=True)


def measured(plan: Plan, *, has_gpu: bool | None = None) -> Estimate:
    """What a step takes, from the second one on: the optimizer has its state by then.

    `has_gpu`: whether main memory is another than the device's; None: as on this machine.
    """
    config = plan.config
    precision = choose_precision(config, has_factors=config.has_factors)
    device = this_device()
    has_gpu = device.type == "cuda" if has_gpu is None else has_gpu
    with torch.device("meta"):
        model = build_model(config, plan.model_config, precision, plan.shape, plan.bits, plan.double_quant)
    with FakeTensorMode(allow_non_fake_inputs=True), device:
        place(model)
        trained = [one for one in model.parameters() if one.requires_grad]
        accounts = Accounts(plan.model_config.vocab_size, plan.shape.rows * plan.shape.length)
        held = [*model.parameters(), *model.buffers()]
        if holds_a_copy(config):
            held += [torch.empty_like(one) for one in held]
        for tensor in held:
            accounts.enter(tensor, WEIGHTS)
        collect(config, trained, accounts)
        run_step(config, precision, plan, model, accounts)
        kept, working = optimizer_bytes(config, model, on_gpu=device.type == "cuda")
        answering = 0 if plan.answering is None else plan.answering(plan, model)
        away = waiting_bytes(model) if config.layer_offloading and has_gpu else 0
    most = accounts.most
    stepping = most[WEIGHTS] + most[GRADIENTS] + working
    name, capacity = capacity_of(device)
    found = Estimate(
        weights=most[WEIGHTS] - away,
        gradients=most[GRADIENTS],
        optimizer=kept,
        activations=most[ACTIVATIONS],
        logits=most[LOGITS],
        generation=answering,
        # Layers that will wait are on the device once, until the model is whole.
        total=max(most[WEIGHTS], kept + max(accounts.peak, stepping, most[WEIGHTS] + answering) - away),
        device=name,
        capacity=capacity,
    )
    return beside_server(found, plan.share_of_server)


def holds_a_copy(config: TrainingKeys) -> bool:
    """Whether the reference is a second model, in full and never with activations at the peak."""
    return bool(getattr(config, "holds_a_copy", False))


def collect(config: TrainingKeys, trained: list[nn.Parameter], accounts: Accounts) -> None:
    """Gradients are entered as such once they are whole; an optimizer that steps in the backward pass drops each."""

    def whole(parameter: nn.Parameter) -> None:
        assert parameter.grad is not None, "the hook runs behind the gradient"
        accounts.enter(parameter.grad, GRADIENTS)
        if config.chosen_optimizer.in_backward:
            parameter.grad = None

    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(whole)


def run_step(config: TrainingKeys, precision: Precision, plan: Plan, model: Any, accounts: Accounts) -> None:
    """The passes of one step. Two micro batches are as many as any number: the second finds gradients."""
    device = next(model.parameters()).device.type
    with accounts:
        for _ in range(min(2, config.gradient_accumulation_steps)):
            autocast = (
                nullcontext() if precision.autocast is None else torch.autocast(device, precision.autocast)
            )
            with autocast, kept_elsewhere(config, model):
                loss, logits = plan.losses(config, model, plan.shape)
            if logits is not None and precision.autocast is not None:
                # accelerate hands out what a model returns in float32.
                logits = logits.float()
            del logits
            loss.backward()
            del loss


def optimizer_bytes(config: TrainingKeys, model: Any, *, on_gpu: bool) -> tuple[int, int]:
    """What the optimizer keeps, and what it needs beside that while it steps."""
    chosen = OPTIMIZERS[config.optimizer]
    arguments = config.optimizer_arguments
    embeddings = {id(one) for one in embedding_parameters(model)}
    if chosen.library == "bitsandbytes":
        # Of these alone it keeps the state in 32 bits.
        embeddings = {id(one.weight) for one in model.modules() if isinstance(one, nn.Embedding)}
    kept, sizes = 0, [0]
    for group in parameter_groups(config, chosen, model, ()):
        for one in group["params"]:
            kept += state_bytes(
                config.optimizer, arguments, one.shape, one.element_size(),
                targeted="rank" in group, embedding=id(one) in embeddings,
            )  # fmt: skip
            sizes.append(one.numel() * one.element_size())
    if on_gpu and chosen.made_by in IN_MAIN_MEMORY:
        # What of it a parameter needs is on the device while that one steps.
        return 0, 5 * max(sizes)
    if chosen.fixed.get("fused") or chosen.library == "bitsandbytes":
        return kept, 0
    # PyTorch's own step over all parameters at once on a GPU; all others go from one to the next.
    at_once = on_gpu and chosen.library == "torch" and config.optimizer != "muon"
    return kept, sum(sizes) if at_once else 2 * max(sizes)
