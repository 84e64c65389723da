"""The keys of fused kernels: which ones, from where, and which of them are insisted on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from tunemill.stages.declaration import ConflictError, Idle
from tunemill.stages.training.keys.experts import ExpertKeys
from tunemill.stages.training.keys.plugins import CUT_PLUGINS, IDLE_PLUGINS, LIGER_PLUGINS, PluginKeys

KernelName = Literal[
    "rms_norm", "rope", "swiglu", "geglu", "lora_mlp", "lora_qkv", "lora_o", "linear_cross_entropy"
]
CHUNKS = 8
Source = Literal["tunemill", "liger", "cut_cross_entropy", "chunked"]

LORA: tuple[KernelName, ...] = ("lora_mlp", "lora_qkv", "lora_o")
ELEMENTWISE: tuple[KernelName, ...] = ("rms_norm", "rope", "swiglu", "geglu")

# Liger's keys, and what each computes: those of modules, and those of the loss.
LIGER_MODULES = {
    "liger_rope": ("rope",),
    "liger_rms_norm": ("rms_norm",),
    "liger_glu_activation": ("swiglu", "geglu"),
    "liger_layer_norm": ("layer_norm",),
}
LIGER_LOSSES = {
    "liger_cross_entropy": ("cross_entropy",),
    "liger_fused_linear_cross_entropy": ("linear_cross_entropy",),
}
# The distribution behind each source, whose minor version enters the key; our own are written in Triton.
DISTRIBUTIONS: dict[Source, str] = {
    "tunemill": "triton",
    "liger": "liger-kernel",
    "cut_cross_entropy": "cut-cross-entropy",
}


@dataclass(frozen=True)
class Asked:
    """One key that asks for kernels. It is honoured when one of them runs: a model has one activation.

    `insists`: where none fits, nothing is trained. Otherwise the model computes that itself, to the same numbers.
    """

    key: str
    kernels: tuple[str, ...]
    source: Source = "tunemill"
    insists: bool = True


@dataclass(frozen=True)
class KernelChoice:
    """Kernel to where it comes from, the keys that insist, and in how many chunks a chunked loss is computed."""

    sources: dict[str, Source]
    asked: tuple[Asked, ...]
    chunks: int

    def needing_gpu(self) -> list[str]:
        """Keys that insist on a kernel which runs on a GPU only."""
        return [one.key for one in self.asked if any(self.sources[name] != "chunked" for name in one.kernels)]


NONE_CHOSEN = KernelChoice({}, (), CHUNKS)


class KernelKeys(PluginKeys, ExpertKeys):
    """Kernels inside the model. What computes the loss is a matter of the method: see `LossKernelKeys`."""

    kernels: Literal["auto", "off"] | list[KernelName] = Field(
        "auto",
        description="fused kernels: auto, every one that fits the model, on a GPU; off; or the names of those to use, "
        "an error where one cannot run",
    )
    lora_mlp_kernel: bool | None = Field(
        None,
        description="adapters of the MLP in one kernel; true where it fits, false never, unset: as kernels says",
    )
    lora_qkv_kernel: bool | None = Field(
        None,
        description="adapters of q, k and v in one kernel; true where it fits, false never, unset: as kernels says",
    )
    lora_o_kernel: bool | None = Field(
        None, description="adapter of attention's output in one kernel; as lora_qkv_kernel"
    )
    liger_rope: bool = Field(False, description="rotate q and k by Liger Kernel")
    liger_rms_norm: bool = Field(False, description="RMSNorm by Liger Kernel")
    liger_glu_activation: bool = Field(
        False,
        description="SwiGLU or GeGLU by Liger Kernel; the lora_mlp kernel, where asked for, goes before it",
    )
    liger_layer_norm: bool = Field(False, description="LayerNorm by Liger Kernel")

    @field_validator("kernels", mode="before")
    @classmethod
    def _off_is_no_boolean(cls, value: object) -> object:
        # YAML 1.1 reads a bare `off` as false.
        if value is True:
            raise ValueError("true: write auto, off, or a list of kernels")
        return "off" if value is False else value

    @property
    def named_kernels(self) -> list[KernelName]:
        """The kernels that `kernels` lists."""
        return self.kernels if isinstance(self.kernels, list) else []

    @property
    def lora_kernels(self) -> dict[KernelName, bool | None]:
        """Kernel to the value of its key."""
        values = (self.lora_mlp_kernel, self.lora_qkv_kernel, self.lora_o_kernel)
        return dict(zip(LORA, values, strict=True))

    @property
    def liger_kernels(self) -> dict[str, tuple[str, ...]]:
        """Those of Liger's keys that are set, and what each computes."""
        values = {
            "liger_rope": self.liger_rope,
            "liger_rms_norm": self.liger_rms_norm,
            "liger_glu_activation": self.liger_glu_activation and not self.insists_on_lora_mlp,
            "liger_layer_norm": self.liger_layer_norm,
        }
        return {key: names for key, names in LIGER_MODULES.items() if values[key]}

    @property
    def loss_kernels(self) -> tuple[Asked, ...]:
        """The keys that insist on a kernel of the loss; none where the method computes its own."""
        return ()

    @property
    def automatic_losses(self) -> tuple[KernelName, ...]:
        """The kernels of the loss that `kernels: auto` takes."""
        return ()

    @property
    def loss_chunks(self) -> int:
        """Chunks of tokens of a chunked loss."""
        return CHUNKS

    @property
    def insists_on_lora_mlp(self) -> bool:
        """Whether the lora_mlp kernel, which computes the activation too, is asked for by name."""
        return bool(self.lora_mlp_kernel) or "lora_mlp" in self.named_kernels

    def choose_kernels(self, *, has_adapter: bool, compiles: bool) -> KernelChoice:
        """The kernels that are asked for. What is insisted on goes before what `kernels: auto` takes."""
        sources: dict[str, Source] = {}
        if self.kernels == "auto":
            adapters = LORA if has_adapter else ()
            # The compiler fuses what is elementwise itself, across the borders that a kernel would set it.
            elementwise = () if compiles else ELEMENTWISE
            sources |= dict.fromkeys((*elementwise, *adapters, *self.automatic_losses), "tunemill")
        asked = [Asked(f"kernels: [{name}]", (name,)) for name in self.named_kernels]
        for name, wanted in self.lora_kernels.items():
            if wanted and has_adapter:
                asked.append(Asked(f"{name}_kernel: true", (name,), insists=False))
            elif wanted is False:
                sources.pop(name, None)
        asked += [
            Asked(f"{key}: true", names, "liger", insists=False) for key, names in self.liger_kernels.items()
        ]
        if "liger_glu_activation" in self.liger_kernels:
            sources.pop("lora_mlp", None)
        asked += self.loss_kernels
        for one in asked:
            sources |= dict.fromkeys(one.kernels, one.source)
        if "cross_entropy" in sources:
            sources.pop("linear_cross_entropy", None)
        return KernelChoice(sources, tuple(asked), self.loss_chunks)

    def used_libraries(self) -> tuple[str, ...]:
        """The kernels' own, where they may shape the result; which machine it is does not count."""
        choice = self.choose_kernels(has_adapter=True, compiles=False)
        used = {DISTRIBUTIONS[source] for source in choice.sources.values() if source in DISTRIBUTIONS}
        return (*super().used_libraries(), *sorted(used))

    @model_validator(mode="after")
    def _check_kernels(self) -> Self:
        wanted = [f"{name}_kernel" for name, value in self.lora_kernels.items() if value]
        if self.kernels == "off" and wanted:
            raise ConflictError(
                f"kernels: off and {', '.join(wanted)}: true exclude each other. Remove one",
                "kernels",
                *wanted,
            )
        for name, value in self.lora_kernels.items():
            if value is False and name in self.named_kernels:
                key = f"{name}_kernel"
                raise ConflictError(f"{key}: false, but kernels names {name}. Remove one", key, "kernels")
        return self

    @model_validator(mode="after")
    def _check_liger(self) -> Self:
        for key, names in self.liger_kernels.items():
            both = sorted(set(names) & set(self.named_kernels))
            if both:
                raise ConflictError(
                    f"{key}: true and kernels: {both} both compute it. Remove one", key, "kernels"
                )
        return self

    @model_validator(mode="after")
    def _check_no_foreign_loss(self) -> Self:
        if isinstance(self, LossKernelKeys):
            return self
        if "linear_cross_entropy" in self.named_kernels:
            raise ConflictError(
                "kernels: linear_cross_entropy computes the loss of supervised training, and this method has its own. "
                "Remove it",
                "kernels",
            )
        cut = sorted(CUT_PLUGINS & set(self.plugins))
        if cut:
            raise ConflictError(
                f"plugins: {', '.join(cut)}: computes the loss of supervised training, and this method has its own. "
                f"Remove it",
                "plugins",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """The second of two kernels for one activation, and a plugin of which no kernel is asked for."""
        yield from super().idle()
        asked = any(getattr(self, key, False) for key in (*LIGER_MODULES, *LIGER_LOSSES))
        rest = set(self.plugins) - set(IDLE_PLUGINS)
        if rest and rest <= LIGER_PLUGINS and not asked:
            yield Idle("plugins", "no liger_* key asks for a kernel of it")
        elif self.plugins and not rest:
            yield Idle("plugins", "; ".join(IDLE_PLUGINS[name] for name in self.plugins))
        if self.liger_glu_activation and self.insists_on_lora_mlp:
            yield Idle(
                "liger_glu_activation", "the lora_mlp kernel, which is asked for, computes the activation too"
            )


class LossKernelKeys(KernelKeys):
    """Kernels inside a model that computes its own loss, and for that loss."""

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

    @property
    def cuts_cross_entropy(self) -> bool:
        """Whether Cut Cross Entropy computes the loss: its plugin is enough, as in Axolotl."""
        if self.cut_cross_entropy is not None:
            return self.cut_cross_entropy
        return bool(CUT_PLUGINS & set(self.plugins))

    @property
    def loss_kernels(self) -> tuple[Asked, ...]:
        """The keys that insist on a kernel of the loss."""
        asked = (
            (self.liger_cross_entropy, Asked("liger_cross_entropy: true", ("cross_entropy",), "liger")),
            (
                self.liger_fused_linear_cross_entropy,
                Asked("liger_fused_linear_cross_entropy: true", ("linear_cross_entropy",), "liger"),
            ),
            (
                self.cuts_cross_entropy,
                Asked("cut_cross_entropy: true", ("linear_cross_entropy",), "cut_cross_entropy"),
            ),
            (
                self.chunked_cross_entropy,
                Asked("chunked_cross_entropy: true", ("linear_cross_entropy",), "chunked"),
            ),
        )
        return tuple(one for is_asked, one in asked if is_asked)

    @property
    def automatic_losses(self) -> tuple[KernelName, ...]:
        """The kernels of the loss that `kernels: auto` takes."""
        return ("linear_cross_entropy",)

    @property
    def loss_chunks(self) -> int:
        """Chunks of tokens of a chunked loss."""
        return self.chunked_cross_entropy_num_chunks or CHUNKS

    @model_validator(mode="after")
    def _check_loss(self) -> Self:
        keys = [one.key.partition(":")[0] for one in self.loss_kernels]
        if "linear_cross_entropy" in self.named_kernels:
            keys.append("kernels")
        if len(keys) > 1:
            raise ConflictError(f"{' and '.join(keys)}: each computes the loss. Keep one", *keys)
        return self

    def idle(self) -> Iterator[Idle]:
        """Chunks of a loss that is not computed in chunks."""
        yield from super().idle()
        if self.chunked_cross_entropy_num_chunks is not None and not self.chunked_cross_entropy:
            yield Idle(
                "chunked_cross_entropy_num_chunks",
                "chunked_cross_entropy is off, so nothing is computed in chunks",
            )
