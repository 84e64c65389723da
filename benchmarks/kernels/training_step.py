"""A whole training step of Llamas with random weights, shaped as Llama 3.2 1B and Llama 3 8B, on one packed row.

Ways: kernels off ("eager"), kernels on ("tunemill"), Liger, torch.compile of the whole model. Each with LoRA (PEFT,
rank 16, every linear layer, bfloat16 adapters), the 1B also with all parameters trained, gradient checkpointing off
and on; bfloat16, sdpa attention, fused AdamW. The row of 4096 tokens holds seven documents, whose position ids start
at 0.

FLOPs of a step: per token 6 N for full training and 4 N for LoRA, whose base needs no weight gradients (N counts every
parameter, a tied embedding once, as the head's, another not); 6 per adapter parameter; attention 6 * layers * hidden *
sum of squared document lengths, its causal half only. Checkpointing's second forward is not counted: MFU is of useful
work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.kernels.case import Setting
from benchmarks.kernels.competitors import library
from benchmarks.kernels.kernel_unit import reason
from benchmarks.kernels.row import FAILED, TRAINING_STEP, Row
from benchmarks.kernels.timing import free_memory
from benchmarks.kernels.ways import COMPILED, LIGER, OURS

RANK = 16
LEARNING_RATE = 1e-4
FULL_KERNELS = ("rms_norm", "rope", "linear_cross_entropy", "swiglu")
# lora_mlp holds the activation.
LORA_KERNELS = ("rms_norm", "rope", "linear_cross_entropy", "lora_mlp", "lora_qkv", "lora_o")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Llama, the documents in its row, and how many steps are taken."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    documents: tuple[int, ...]
    tied: bool = True
    warm_up_steps: int = 3
    timed_steps: int = 8

    @property
    def tokens(self) -> int:
        """In one step."""
        return sum(self.documents)


LLAMA_1B = Shape(
    hidden=2048,
    intermediate=8192,
    layers=16,
    heads=32,
    key_heads=8,
    vocabulary=128_256,
    documents=(1411, 823, 640, 517, 389, 211, 105),
)
LLAMA_8B = Shape(
    hidden=4096,
    intermediate=14336,
    layers=32,
    heads=32,
    key_heads=8,
    vocabulary=128_256,
    documents=LLAMA_1B.documents,
    tied=False,
)
TINY = Shape(
    hidden=32,
    intermediate=64,
    layers=2,
    heads=4,
    key_heads=2,
    vocabulary=128,
    documents=(13, 11, 8),
    warm_up_steps=1,
    timed_steps=1,
)


@dataclass(frozen=True, kw_only=True)
class Training:
    """One row of the table."""

    way: str
    lora: bool
    checkpointing: bool
    setting: Setting
    size: str = "1B"

    @property
    def shape(self) -> Shape:
        """Which model."""
        return TINY if self.setting.tiny else {"1B": LLAMA_1B, "8B": LLAMA_8B}[self.size]

    @property
    def row(self) -> Row:
        """What is to be measured."""
        method = "LoRA" if self.lora else "full"
        return Row(
            kernel=TRAINING_STEP,
            shape=f"{self.size} {method}, checkpointing {'on' if self.checkpointing else 'off'}",
            dtype="bf16",
            way=self.way,
        )


def trainings(setting: Setting, ways: tuple[str, ...]) -> list[Training]:
    """Every combination; the ways of one combination one after the other."""
    combinations = [("1B", True, False), ("1B", False, False), ("8B", True, False), ("1B", True, True)]
    combinations += [("1B", False, True), ("8B", True, True)]
    if setting.tiny:
        combinations = [("1B", True, False), ("1B", False, True)]
    return [
        Training(way=way, lora=lora, checkpointing=checkpointing, setting=setting, size=size)
        for size, lora, checkpointing in combinations
        for way in ways
    ]


def measure(training: Training) -> Row:
    """The row. Nothing is raised: what fails is in its note, as FAILED if it is ours."""
    try:
        return measured(training)
    except Exception as error:  # noqa: BLE001 - another library's call may fail in any way; ours must not end the run
        return replace(training.row, note=reason(error, ours=training.way == OURS))
    finally:
        torch.compiler.reset()
        free_memory(thoroughly=True)


def measured(training: Training) -> Row:
    """Build the model, take some steps, then time some more."""
    shape = training.shape
    torch.manual_seed(0)
    model, note = prepared(training)
    batch = packed_batch(shape, training.setting.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=training.setting.device == "cuda")

    def step() -> Tensor:
        loss: Tensor = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    losses = [step() for _ in range(shape.warm_up_steps)]
    seconds, timed_losses, peak = timed(step, shape.timed_steps)
    adapter = sum(parameter.numel() for parameter in trained) if training.lora else 0
    looked_up = 0 if shape.tied else shape.vocabulary * shape.hidden
    base = sum(parameter.numel() for parameter in model.parameters()) - adapter - looked_up
    return replace(
        training.row,
        both_ms=1000 * seconds,
        both_flops=step_flops(shape, base, adapter, lora=training.lora),
        peak_mib=peak,
        tokens_per_second=shape.tokens / seconds,
        first_loss=float(losses[0]),
        last_loss=float(timed_losses[-1]),
        note=note,
    )


def timed(step: Callable[[], Tensor], steps: int) -> tuple[float, list[Tensor], float | None]:
    """Seconds per step by the wall, the losses, and peak memory in MiB (None on a CPU)."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    losses = [step() for _ in range(steps)]
    if on_gpu:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / steps
    return seconds, losses, torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None


def prepared(training: Training) -> tuple[Any, str]:
    """The model in one of the ways, and a note on it."""
    model: Any = random_llama(training)
    if training.way == LIGER:
        library("liger_kernel.transformers", "_apply_liger_kernel_to_instance")(model=model)
    if training.lora:
        model = with_lora(model)
    model.train()
    note = ""
    if training.way == OURS:
        note = put_kernels(model, LORA_KERNELS if training.lora else FULL_KERNELS)
    if training.way == COMPILED:
        model = torch.compile(model, backend="inductor" if training.setting.device == "cuda" else "eager")
    return model, note


def random_llama(training: Training) -> Any:
    """A Llama in bfloat16 on the device, its rotary frequencies in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = training.shape
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.tokens,
        tie_word_embeddings=shape.tied,
        use_cache=False,
        attn_implementation="sdpa",
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(training.setting.device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    if training.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def with_lora(model: nn.Module) -> Any:
    """PEFT around every linear layer but the head. B is random, so that the first loss depends on the adapters."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def put_kernels(model: nn.Module, names: tuple[str, ...]) -> str:
    """Our kernels into the model; a note, FAILED if one of them found no place."""
    from tunemill.stages.training.kernels.surroundings_body import use_kernels

    applied = use_kernels(model, names)
    missing = [name for name in names if name not in applied.places]
    if missing:
        reasons = {name: list(applied.refusals.get(name, {})) for name in missing}
        return f"{FAILED}: no place for {reasons}"
    refused = sorted(applied.refusals)
    return f"refused in places: {', '.join(refused)}" if refused else ""


def packed_batch(shape: Shape, device: str) -> dict[str, Tensor]:
    """Random tokens; the first of a document is nobody's label."""
    positions = torch.cat([torch.arange(length) for length in shape.documents])
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(shape.vocabulary, (shape.tokens,), generator=generator)
    labels = tokens.masked_fill(positions == 0, -100)
    batch = {"input_ids": tokens, "position_ids": positions, "labels": labels}
    return {name: values.unsqueeze(0).to(device) for name, values in batch.items()}


def step_flops(shape: Shape, base: int, adapter: int, *, lora: bool) -> int:
    """Useful floating-point operations of one step (see the top of this file)."""
    attention = 6 * shape.layers * shape.hidden * sum(length**2 for length in shape.documents)
    return shape.tokens * ((4 if lora else 6) * base + 6 * adapter) + attention
