"""What the `trained` stage reads from the YAML."""

from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from tunemill.stages.declaration import Runtime, StageConfig
from tunemill.stages.trained.conflicts import check_conflicts
from tunemill.stages.trained.kernel_choice import PLUGINS, KernelName

AttentionName = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
OptimizerName = Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"]
SchedulerName = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
]  # fmt: skip
# Axolotl's names that do not run here yet: a plain "not one of" would suggest a spelling mistake.
NOT_YET = {
    "adapter": {"qlora", "llama-adapter"},
    "lr_scheduler": {"one_cycle", "rex", "reduce_lr_on_plateau", "greedy"},
    "gradient_checkpointing": {"offload", "offload_disk"},
    "save_strategy": {"best"},
    "eval_strategy": {"best"},
    "peft_init_lora_weights": {"pissa", "olora", "corda", "eva", "loftq", "lora_ga"},
}


class TrainedConfig(StageConfig):
    """Supervised fine-tuning, full or LoRA. Names and defaults are Axolotl's."""

    adapter: Literal["lora"] | None = Field(
        None, description="train a low-rank adapter; unset: every parameter"
    )
    lora_r: PositiveInt | None = Field(None, description="rank of the adapter")
    lora_alpha: PositiveInt | None = Field(None, description="scale of the adapter: alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapter")
    lora_target_modules: list[str] | str | None = Field(
        None, description="names (or one regular expression) of the modules that get an adapter"
    )
    lora_target_linear: bool = Field(
        False, description="give every linear module but the output head an adapter"
    )
    lora_modules_to_save: list[str] | None = Field(
        None, description="modules trained whole and saved beside it"
    )
    tokens: list[str] = Field([], description="added tokens: with an adapter they need lora_modules_to_save")
    lora_fan_in_fan_out: bool = Field(False, description="weights are stored (in, out), as in GPT-2")
    peft_use_rslora: bool = Field(False, description="scale by alpha / sqrt(r)")
    peft_layers_to_transform: list[NonNegativeInt] | None = Field(
        None, description="only these layers, from 0"
    )
    peft_init_lora_weights: bool | Literal["gaussian", "orthogonal"] = Field(
        True, description="how adapter weights start; true: the first factor random, the second zero"
    )

    sequence_len: PositiveInt = Field(512, description="tokens that a sequence is padded to")
    sample_packing: bool = Field(False, description="several rows per sequence, kept apart by position ids")
    multipack_real_batches: bool | None = Field(
        None,
        description="sample_packing: sequences of a micro batch as rows of a batch (true) or one behind the other "
        "(false); unset: one behind the other with flash attention only",
    )
    eval_sample_packing: Runtime[bool | None] = Field(
        None, description="several held-out rows per sequence, unset no: evaluations leave the weights alone"
    )
    batch_flattening: Literal["auto"] | bool = Field(
        False,
        description="rows of a micro batch one behind the other, kept apart by position ids, in place of padding; "
        "auto: with flash attention",
    )
    pad_to_sequence_len: bool | None = Field(
        None, description="pad every sequence to sequence_len; unset: with sample_packing only"
    )
    pad_to_multiple_of: PositiveInt | None = Field(
        None,
        description="pad a micro batch to a multiple of this many tokens; not read when padded to sequence_len",
    )

    micro_batch_size: PositiveInt = Field(1, description="sequences per forward pass")
    gradient_accumulation_steps: PositiveInt = Field(1, description="forward passes per optimizer step")
    num_epochs: PositiveFloat = Field(1.0, description="passes over the data")
    max_steps: PositiveInt | None = Field(None, description="optimizer steps; goes before num_epochs")
    curriculum_sampling: bool = Field(False, description="read every epoch in the order of the data")
    group_by_length: bool = Field(False, description="put sequences of like length into one step")
    seed: NonNegativeInt = Field(42, description="adapter weights, dropout, order from the second epoch on")

    learning_rate: PositiveFloat = Field(description="peak learning rate")
    lr_scheduler: SchedulerName = Field("cosine", description="how the learning rate falls")
    lr_scheduler_kwargs: dict[str, Any] | None = Field(None, description="arguments of the scheduler")
    cosine_min_lr_ratio: float | None = Field(
        None, ge=0, le=1, description="cosine: last over peak learning rate"
    )
    warmup_steps: NonNegativeInt | None = Field(
        None, description="steps of rising learning rate; unset: 3% of all steps, at most 100"
    )
    warmup_ratio: float | None = Field(
        None, ge=0, lt=1, description="share of all steps with rising learning rate"
    )

    optimizer: OptimizerName = Field(
        "adamw_torch_fused", description="optimizer, by its name in transformers"
    )
    optim_args: dict[str, Any] | str | None = Field(None, description='more arguments, also as "a=1,b=2"')
    adam_beta1: float | None = Field(None, ge=0, lt=1, description="AdamW; unset: 0.9")
    adam_beta2: float | None = Field(None, ge=0, lt=1, description="AdamW; unset: 0.999")
    adam_epsilon: PositiveFloat | None = Field(None, description="AdamW; unset: 1e-8")
    weight_decay: NonNegativeFloat = Field(0.0, description="decay of weights, not of biases and norms")
    max_grad_norm: NonNegativeFloat = Field(
        1.0, description="longer gradients are shortened to this; 0: never"
    )
    neftune_noise_alpha: PositiveFloat | None = Field(None, description="NEFTune noise on the embeddings")

    bf16: Literal["auto", "full"] | bool = Field(
        "auto", description="bfloat16 weights under autocast; full: no autocast; auto: where the GPU has it"
    )
    fp16: bool = Field(False, description="float16 under autocast; needs a GPU")
    tf32: bool | None = Field(None, description="TF32 matrix products; needs a GPU")
    float32: bool = Field(False, description="plain float32")
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice instead of keeping them"
    )
    gradient_checkpointing_kwargs: dict[str, Any] | None = Field(
        None, description="arguments of torch.utils.checkpoint; unset: use_reentrant false"
    )
    attn_implementation: AttentionName | None = Field(
        None, description="attention; unset: what the model prefers"
    )
    sdp_attention: bool | None = Field(None, description="older name of attn_implementation: sdpa")
    flash_attention: bool | None = Field(
        None, description="older name of attn_implementation: flash_attention_2"
    )
    eager_attention: bool | None = Field(None, description="older name of attn_implementation: eager")
    flex_attention: bool | None = Field(None, description="older name of attn_implementation: flex_attention")
    torch_compile: bool | Literal["auto"] = Field(False, description="compile the model; auto is true")

    kernels: Literal["auto", "off"] | list[KernelName] = Field(
        "auto",
        description="fused kernels: auto, every one that fits the model, on a GPU; off; or the names of those to use, "
        "an error where one cannot run",
    )
    lora_mlp_kernel: bool | None = Field(
        None,
        description="adapters of the MLP in one kernel; true insists, false never, unset: as kernels says",
    )
    lora_qkv_kernel: bool | None = Field(
        None,
        description="adapters of q, k and v in one kernel; true insists, false never, unset: as kernels says",
    )
    lora_o_kernel: bool | None = Field(
        None, description="adapter of attention's output in one kernel; as lora_qkv_kernel"
    )
    plugins: list[str] = Field(
        [], description="Axolotl's plugins of kernels by their names there: Liger, Cut Cross Entropy"
    )
    liger_rope: bool = Field(False, description="rotate q and k by Liger Kernel")
    liger_rms_norm: bool = Field(False, description="RMSNorm by Liger Kernel")
    liger_glu_activation: bool = Field(False, description="SwiGLU or GeGLU by Liger Kernel")
    liger_layer_norm: bool = Field(False, description="LayerNorm by Liger Kernel")
    liger_cross_entropy: bool = Field(False, description="loss over logits by Liger Kernel")
    liger_fused_linear_cross_entropy: bool = Field(False, description="projection and loss by Liger Kernel")
    cut_cross_entropy: bool | None = Field(
        None, description="projection and loss by Cut Cross Entropy; unset: if its plugin is named"
    )
    chunked_cross_entropy: bool = Field(
        False, description="projection and loss in chunks of tokens, in plain PyTorch on any machine"
    )
    chunked_cross_entropy_num_chunks: PositiveInt | None = Field(
        None, description="number of those chunks; unset: 8"
    )

    logging_steps: Runtime[PositiveInt | None] = Field(
        None, description="steps between two reports: shows the run, changes no weight"
    )
    save_steps: Runtime[PositiveFloat | None] = Field(
        None, description="steps (below 1: share of all steps) between checkpoints: for resuming only"
    )
    saves_per_epoch: Runtime[PositiveInt | None] = Field(
        None, description="checkpoints per epoch: for resuming only"
    )
    save_strategy: Runtime[Literal["no", "epoch", "steps"] | None] = Field(
        None, description="when checkpoints are written, unset at each epoch: for resuming only"
    )
    save_total_limit: Runtime[PositiveInt] = Field(2, description="checkpoints kept: for resuming only")
    eval_steps: Runtime[PositiveFloat | None] = Field(
        None,
        description="steps (below 1: share of all steps) between evaluations: they leave the weights alone",
    )
    evals_per_epoch: Runtime[PositiveInt | None] = Field(
        None, description="evaluations per epoch: they leave the weights alone"
    )
    eval_strategy: Runtime[Literal["no", "epoch", "steps"] | None] = Field(
        None, description="when to evaluate, unset never: evaluations leave the weights alone"
    )
    eval_batch_size: Runtime[PositiveInt | None] = Field(
        None, description="rows per evaluation pass, unset as micro_batch_size: they leave the weights alone"
    )
    dataloader_num_workers: Runtime[NonNegativeInt] = Field(
        0, description="processes that collate batches: the order and the batches stay the same"
    )
    dataloader_pin_memory: Runtime[bool] = Field(
        True, description="page-locked batches: a faster copy of the same numbers"
    )
    dataloader_prefetch_factor: Runtime[PositiveInt | None] = Field(
        None, description="batches each worker prepares ahead: the order stays the same"
    )

    @field_validator(*NOT_YET, mode="before")
    @classmethod
    def _known_but_not_yet(cls, value: object, info: Any) -> object:
        if isinstance(value, str) and value in NOT_YET[info.field_name]:
            raise ValueError(f"{value} is not supported yet")
        return value

    @field_validator("kernels", mode="before")
    @classmethod
    def _off_is_no_boolean(cls, value: object) -> object:
        # YAML 1.1 reads a bare `off` as false.
        if value is True:
            raise ValueError("true: write auto, off, or a list of kernels")
        return "off" if value is False else value

    @field_validator("plugins", mode="after")
    @classmethod
    def _known_plugins(cls, value: list[str]) -> list[str]:
        unknown = [name for name in value if name not in PLUGINS]
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)}: not supported yet. Known are {', '.join(sorted(PLUGINS))}"
            )
        return value

    @field_validator("optim_args", mode="after")
    @classmethod
    def _as_mapping(cls, value: dict[str, Any] | str | None) -> dict[str, Any] | None:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.replace(" ", "").split(",") if part]
        if not all(name and equals and argument for name, equals, argument in pairs):
            raise ValueError(f'"{value}": write name=value, several with commas between')
        return {name: argument for name, _, argument in pairs}

    @model_validator(mode="after")
    def _without_conflict(self) -> "TrainedConfig":
        check_conflicts(self)
        return self

    @property
    def optimizer_arguments(self) -> dict[str, Any]:
        """`optim_args`, whichever way it is written."""
        assert not isinstance(self.optim_args, str), "made a mapping when the config was read"
        return self.optim_args or {}

    @property
    def pads_to_sequence_len(self) -> bool:
        """Whether every sequence is padded to `sequence_len` tokens."""
        return self.sample_packing if self.pad_to_sequence_len is None else self.pad_to_sequence_len

    @property
    def attention(self) -> AttentionName | None:
        """The attention that the config asks for under any of its names; None leaves it to the model."""
        older: dict[AttentionName, bool | None] = {
            "sdpa": self.sdp_attention,
            "flash_attention_2": self.flash_attention,
            "eager": self.eager_attention,
            "flex_attention": self.flex_attention,
        }
        return self.attn_implementation or next((name for name, chosen in older.items() if chosen), None)
