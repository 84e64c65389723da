"""What a case of a key is, and settings that several cases share."""

from dataclasses import dataclass, field
from typing import Any

from stages.training.keys.observations import Observe
from stages.training.keys.trainings import Settings


@dataclass(frozen=True)
class Case:
    """`values` of one key, beside the same other settings, each of which `observe` must tell from the others."""

    values: tuple[Any, ...]
    observe: Observe
    beside: Settings = field(default_factory=dict)
    method: str = "sft"
    base: str = "llama"
    on_gpu: bool = False
    """Whether the machine pretends to have a GPU: then the training ends where it would be used."""


LORA: Settings = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj"]}
# Frozen layers that wait, which not everything allows.
WAITING: Settings = {**LORA, "layer_offloading": True}
FACTORS: Settings = {name: value for name, value in LORA.items() if name != "adapter"}
EVERY: Settings = {**LORA, "lora_target_modules": None, "lora_target_linear": True}
CUT = "cut_cross_entropy"
CONSTANT: Settings = {"lr_scheduler": "constant"}
SGD: Settings = {"optimizer": "sgd", "lr_scheduler": "constant"}
EPOCHS: Settings = {"max_steps": None, "num_epochs": 2}
SAVING: Settings = {**EPOCHS, "save_strategy": None, "save_total_limit": 99, "micro_batch_size": 2}
EVALUATING: Settings = {**EPOCHS, "micro_batch_size": 2}
PACKED: Settings = {"sample_packing": True, "sequence_len": 20, "micro_batch_size": 2}


def without(settings: Settings, *names: str) -> Settings:
    """The settings but those of these names."""
    return {name: value for name, value in settings.items() if name not in names}


def lora(**changes: Any) -> Settings:
    """The settings of an adapter, some of them changed."""
    return {**LORA, **changes}
