"""Where a key of training can take effect: each function looks at one place of a training, as plain values."""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from stages.training.keys.trainings import Seen
from torch import Tensor
from torch._dynamo.eval_frame import OptimizedModule
from torchao.quantization.qat import FakeQuantizedLinear

from tunemill.stages.training.ebft.documents_body import document_of
from tunemill.stages.training.ebft.features_body import feature_advantages
from tunemill.stages.training.ebft.rewards_body import embedded, likeness
from tunemill.stages.training.online.batches_body import batch_of, settings_of
from tunemill.stages.training.online.engine import Completion
from tunemill.stages.training.online.rollouts import Rollout
from tunemill.stages.training.online.vllm_keys import VllmKeys

Observe = Callable[[Seen], Any]
# One that was cut off, and one that ended.
COMPLETIONS = [
    Rollout(0, 0, 0, (5,), Completion((6, 7), (-1.0, -1.0), "length", 1, ""), ""),
    Rollout(0, 0, 0, (5,), Completion((6,), (-1.0,), "stop", 2, ""), ""),
]


def digest(tensor: Tensor) -> str:
    """Short name of a tensor's exact values."""
    return hashlib.sha256(tensor.detach().float().numpy().tobytes()).hexdigest()[:12]


# What is refused, and which kernels are chosen.


def refusal(seen: Seen) -> str | None:
    """The reason that the training was refused for."""
    return seen.refusal


def idle_keys(seen: Seen) -> list[str]:
    """Keys that ask for nothing beside the others."""
    return [item.key for item in seen.config.idle()]


def chosen_kernels(seen: Seen) -> dict[str, str]:
    """Kernel to its source, of those that a GPU would train with."""
    return seen.config.kernel_choice.sources


def source_of_swiglu(seen: Seen) -> str | None:
    """Where the activation's kernel comes from."""
    return seen.config.kernel_choice.sources.get("swiglu")


# What is seen of a config alone, without a training.
def faulty_keys(seen: Seen) -> list[str]:
    """Keys that the files which are named do not agree with."""
    return [item.key for item in seen.config.faults()]


def doubts(seen: Seen) -> list[str]:
    """What a stored adapter says of another base."""
    return list(seen.config.doubts())


def sampled(seen: Seen) -> str:
    """How completions are drawn, how many side by side, and which of them a step learns from."""
    config: Any = seen.config
    ends = sorted(config.stop_token_ids)
    return repr((config.sampling, ends, config.groups_at_once, config.plan(40)))


def learned(seen: Seen) -> str:
    """What the loss and the advantages are made of, and what is kept and shown of a round."""
    config: Any = seen.config
    batch = batch_of(config, COMPLETIONS, [0.0, 0.0], {}, "cpu")
    named = ("scale_rewards", "multi_objective_aggregation", "top_entropy_quantile")
    shown = ("log_completions", "num_completions_to_print", "keep_rollouts")
    values = {name: getattr(config, name) for name in (*named, *shown)}
    return repr((settings_of(config), batch["mask"].tolist(), batch["skipped"], values))


def held_out(seen: Seen) -> str:
    """How often held-out prompts are answered, and how many side by side."""
    config: Any = seen.config
    return repr((config.held_out_generations, config.held_out_at_once))


def judged(seen: Seen) -> str:
    """Which rewards are asked, how, and what each counts."""
    config: Any = seen.config
    bounds = (config.reward_num_workers, config.reward_timeout, config.failed_rewards)
    parts = (config.streaming_partial_batch, config.streaming_min_groups)
    return repr((config.reward_names, config.own_rewards, config.weights, config.reward_code, bounds, parts))


def called(seen: Seen) -> str:
    """What a completion may call, how often, and by which words it is told."""
    config: Any = seen.config
    named = (config.environment_factory, config.tools, config.called_code, config.calls_tools)
    named = (*named, config.environment_reward, config.environment_rewards)
    named = (*named, config.rollout_func, config.rollout_code, config.samples_otherwise, config.is_off_policy)
    rendered = (config.template_variables, sorted(config.deciding()))
    return repr((named, config.max_tool_calling_iterations, rendered, config.longest_prompt(3)))


def featured(seen: Seen) -> str:
    """What a frozen model's states of completions and answers come to, what that counts, and how long they may be."""
    config: Any = seen.config
    states = [torch.arange(1.0 + layer, 25.0 + layer).reshape(2, 4, 3) ** 0.5 for layer in range(9)]
    states = [one * (-1) ** place for place, one in enumerate(states)]
    mask, prompt = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]), torch.tensor([1, 2])
    made = embedded(config, states, mask, prompt)
    alike = likeness(config, made[None], made[:1] + made[1:] ** 2, 0)
    found = [made.tolist(), *(one.tolist() for one in alike)]
    longest = [config.longest_for(tokens) for tokens in (1, 100, 1000)]
    document = document_of(config, 0, range(20), range(100), asks=True)
    drawn = document.starts, document.mask.tolist(), config.strided_sampling
    advantages = feature_advantages(torch.tensor([[1.0, 2.0, 6.0]]), config.advantage_estimator).tolist()
    counted = config.ce_coef, config.rl_coef, config.n_samples_per_prompt
    return repr((config.mode, found, config.weights, longest, drawn, advantages, counted))


def engine(seen: Seen) -> str:
    """What is asked of the engine, and how what it samples is weighted."""
    config: Any = seen.config
    left_out = ("_cap", "_of_block", "_mode")
    asked = {name: getattr(config, name) for name in VllmKeys.model_fields if not name.endswith(left_out)}
    started = config.starts_vllm, config.vllm_share, config.vllm_gpus
    return repr((asked, config.vllm_url, config.correction_bounds, started))


def older(seen: Seen) -> str:
    """How old what is learned from may be, what is learned from again, and what is asked again."""
    config: Any = seen.config
    groups = (config.replays, config.replay_buffer_size, config.replay_recompute_logps)
    prompts = (config.rerolls, config.first_reroll(10), config.reroll_max_groups)
    ages = (config.rounds_ahead, config.sync_interval, config.oldest_round(9), config.correction)
    return repr((groups, prompts, ages))


OF_CONFIGS = (
    idle_keys,
    chosen_kernels,
    source_of_swiglu,
    faulty_keys,
    doubts,
    sampled,
    learned,
    held_out,
    judged,
    featured,
    engine,
    older,
    called,
)


def reported_kernels(seen: Seen) -> list[Any]:
    """The table of kernels in the model."""
    return [table["rows"] for table in seen.heard.of("table")]


def loss_shapes(seen: Seen) -> list[tuple[int, ...]]:
    """Shapes of the logits whose loss was computed."""
    return seen.loss_shapes


# The arguments of the Trainer.


def argument(name: str) -> Observe:
    """What the Trainer's arguments are given under `name`."""

    def given(seen: Seen) -> Any:
        return seen.arguments[name]

    given.__name__ = f"given_{name}"
    return given


def loaded_type(seen: Seen) -> str:
    """The type in which the model's weights are read."""
    return str(seen.loaded)


# The model.


def trained_parameters(seen: Seen) -> list[str]:
    """Names of the parameters that are trained."""
    return [name for name, tensor in seen.trainer.model.named_parameters() if tensor.requires_grad]


def trained_shapes(seen: Seen) -> list[tuple[int, ...]]:
    """Shapes of the parameters that are trained."""
    parameters = seen.trainer.model.parameters()
    return [tuple(tensor.shape) for tensor in parameters if tensor.requires_grad]


def adapter_types(seen: Seen) -> set[str]:
    """Types of the parameters that are trained."""
    parameters = seen.trainer.model.parameters()
    return {str(tensor.dtype) for tensor in parameters if tensor.requires_grad}


def saved_tying(seen: Seen) -> bool:
    """Whether the saved adapter says that what the base ties stays one."""
    config = json.loads((seen.folder / "data" / "adapter_config.json").read_text())
    return bool(config["ensure_weight_tying"])


def _adapted(seen: Seen) -> Iterator[tuple[str, Any]]:
    return ((name, m) for name, m in seen.trainer.model.named_modules() if isinstance(m, LoraLayer))


def adapted_modules(seen: Seen) -> list[str]:
    """Names of the modules that have an adapter."""
    return [name for name, _ in _adapted(seen)]


def adapter_shapes(seen: Seen) -> dict[str, tuple[int, ...]]:
    """Shapes of the adapters' first factors."""
    return {name: tuple(module.lora_A["default"].weight.shape) for name, module in _adapted(seen)}


def saved_rank(seen: Seen) -> int:
    """Rank of the saved adapter."""
    return json.loads((seen.folder / "data" / "adapter_config.json").read_text())["r"]


def adapter_scales(seen: Seen) -> dict[str, float]:
    """What each adapter's output is multiplied by."""
    return {name: module.scaling["default"] for name, module in _adapted(seen)}


def adapter_dropouts(seen: Seen) -> dict[str, float]:
    """Probability that an adapter's input is dropped."""
    return {name: getattr(module.lora_dropout["default"], "p", 0.0) for name, module in _adapted(seen)}


def adapter_layouts(seen: Seen) -> dict[str, bool]:
    """Whether each adapter takes its weights as (in, out)."""
    return {name: module.fan_in_fan_out for name, module in _adapted(seen)}


def first_factors(seen: Seen) -> dict[str, str]:
    """The adapters' first factors, which the first step leaves as they were drawn."""
    return {name: digest(module.lora_A["default"].weight) for name, module in _adapted(seen)}


def weights(seen: Seen) -> dict[str, str]:
    """The trained weights."""
    return {name: digest(tensor) for name, tensor in seen.trainer.model.named_parameters()}


def attention(seen: Seen) -> str:
    """The attention that the model computes."""
    return seen.trainer.model.config._attn_implementation


def experts(seen: Seen) -> str:
    """How the model computes its experts."""
    return seen.trainer.model.config._experts_implementation


def weights_and_autocast(seen: Seen) -> tuple[str, str]:
    """Type of the weights, and of the autocast around a pass."""
    return str(seen.trainer.model.dtype), str(seen.trained[0].autocast)


def is_compiled(seen: Seen) -> bool:
    """Whether the model that takes the steps is a compiled one."""
    return isinstance(seen.trainer.model_wrapped, OptimizedModule)


def offloading(seen: Seen) -> str | None:
    """Where activations wait for the backward pass."""
    kept = seen.trainer.offloading
    return kept and kept.to


def roundings(seen: Seen) -> list[str]:
    """How linear modules round their inputs and weights while training."""
    return [
        f"{module.activation_fake_quantizer and module.activation_fake_quantizer.config} "
        f"{module.weight_fake_quantizer.config}"
        for module in seen.trainer.model.modules()
        if isinstance(module, FakeQuantizedLinear)
    ]


def compiler_options(seen: Seen) -> Any:
    """What the compiler is told."""
    return seen.trainer.accelerator.state.dynamo_plugin.options


def callback(kind: str, name: str) -> Observe:
    """A setting of one of the Trainer's callbacks, if it has that one."""

    def setting(seen: Seen) -> Any:
        callbacks = seen.trainer.callback_handler.callbacks
        return next((getattr(one, name) for one in callbacks if type(one).__name__ == kind), None)

    setting.__name__ = f"{kind}_{name}"
    return setting


def summary(name: str) -> Observe:
    """A figure of the whole training."""

    def figure(seen: Seen) -> Any:
        return seen.heard.summary.get(name)

    figure.__name__ = f"summary_{name}"
    return figure


def logs(seen: Seen) -> list[str]:
    """Names of the files beside the log."""
    return sorted(path.name for path in (seen.folder / "logs").iterdir())


def mlp_tokens(seen: Seen) -> list[int]:
    """Tokens of each run of an MLP's last projection."""
    return seen.mlp_tokens


def samples(seen: Seen) -> list[str]:
    """What the model wrote while it was trained."""
    texts = [event["message"] for event in seen.heard.of("log")]
    return [text for text in texts if text.startswith("sample of row")]


def runs_of_a_layer(seen: Seen) -> list[int]:
    """How often the first layer ran in each pass: twice where activations are computed again."""
    return [len(one.hidden) for one in seen.trained]


def reaches_the_embedding(seen: Seen) -> list[bool]:
    """Whether a gradient flows below the first layer."""
    return [one.has_gradient for one in seen.trained]


def checkpointing_arguments(seen: Seen) -> list[Any]:
    """What activations are recomputed with."""
    layer = seen.trainer.model.get_submodule("model.layers.0")
    return layer._gradient_checkpointing_func.keywords


def first_embedding(seen: Seen) -> str:
    """What the embedding hands to the first layer in the first pass."""
    return digest(seen.trained[0].hidden[0])


# The optimizer and its schedule.


def optimizer_class(seen: Seen) -> str:
    """The optimizer that takes the steps."""
    return type(seen.trainer.optimizer.optimizer).__name__


def optimizer_state(seen: Seen) -> tuple[str, list[str]]:
    """The optimizer, by the module and the class of each of its parts."""
    optimizer = seen.trainer.optimizer.optimizer
    parts = getattr(optimizer, "parts", [optimizer])
    return str([type(part).__module__ for part in parts]), [type(part).__name__ for part in parts]


def optimizer_setting(name: str) -> Observe:
    """A setting of the optimizer, of each group of parameters."""

    def groups(seen: Seen) -> list[Any]:
        return [group[name] for group in seen.trainer.optimizer.optimizer.param_groups]

    groups.__name__ = f"optimizer_{name}"
    return groups


def learning_rates(seen: Seen) -> dict[int, float]:
    """Learning rate of each reported step."""
    return seen.heard.steps("learning_rate")


# Batches.


def rows_read(seen: Seen) -> list[list[int]]:
    """The sequences that were trained on, in the order that they were read in, without padding."""
    return [
        ids[mask.bool()].tolist()
        for one in seen.trained
        for ids, mask in zip(one.inputs["input_ids"], one.inputs["attention_mask"], strict=True)
    ]


def batch_shapes(seen: Seen) -> list[tuple[int, ...]]:
    """Sequences and tokens of each training batch."""
    return [tuple(one.inputs["input_ids"].shape) for one in seen.trained]


def rows_in_a_batch(seen: Seen) -> list[int]:
    """Sequences of each training batch."""
    return [len(one.inputs["input_ids"]) for one in seen.trained]


def batch_tensors(seen: Seen) -> list[str]:
    """Names of the tensors that a model is given while training."""
    return sorted(seen.trained[0].inputs)


def held_out_shapes(seen: Seen) -> list[tuple[int, ...]]:
    """Sequences and tokens of each batch of held-out rows."""
    return [tuple(one.inputs["input_ids"].shape) for one in seen.evaluated]


def held_out_rows_in_a_batch(seen: Seen) -> list[int]:
    """Sequences of each batch of held-out rows."""
    return [len(one.inputs["input_ids"]) for one in seen.evaluated]


def held_out_tensors(seen: Seen) -> list[str]:
    """Names of the tensors that a model is given while evaluating."""
    return sorted({name for one in seen.evaluated for name in one.inputs})


def passes_of_a_step(seen: Seen) -> float:
    """Forward passes for each step that was taken."""
    return len(seen.trained) / seen.trainer.state.global_step


def loader_setting(name: str) -> Observe:
    """A setting of the loader of training batches."""

    def loader(seen: Seen) -> Any:
        return getattr(seen.trainer.get_train_dataloader(), name)

    loader.__name__ = f"loader_{name}"
    return loader


# What is reported and written.


def steps_taken(seen: Seen) -> int:
    """Optimizer steps."""
    return seen.trainer.state.global_step


def reported_steps(seen: Seen) -> list[int]:
    """Steps whose loss was reported."""
    return list(seen.heard.steps("loss"))


def evaluated_steps(seen: Seen) -> list[int]:
    """Steps after which held-out rows were evaluated."""
    return list(seen.heard.steps("eval_loss"))


def reported(name: str) -> Observe:
    """A figure of the reported steps."""

    def figure(seen: Seen) -> dict[int, float]:
        return seen.heard.steps(name)

    figure.__name__ = f"reported_{name.replace('/', '_')}"
    return figure


def checkpoints(seen: Seen) -> list[str]:
    """Names of the checkpoints that are left."""
    return sorted(path.name for path in (seen.folder / "checkpoints").iterdir())


def saved_files(seen: Seen) -> list[str]:
    """Names of the files that make the result."""
    return sorted(path.name for path in (seen.folder / "data").iterdir())


def names_its_base(seen: Seen) -> bool:
    """Whether an adapter is saved that names its base as the artifact beside it in the graph, not as a path."""
    config = seen.folder / "data" / "adapter_config.json"
    return config.exists() and json.loads(config.read_text())["base_model_name_or_path"] == "base_model"


def saved_adapter_layout(seen: Seen) -> bool:
    """Whether the saved adapter says that weights are stored as (in, out)."""
    config = json.loads((seen.folder / "data" / "adapter_config.json").read_text())
    return config["fan_in_fan_out"]
