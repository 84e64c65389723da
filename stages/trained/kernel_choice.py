"""Which kernels a config asks for, from where, and which of them it insists on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tunemill.stages.declaration import ConflictError

if TYPE_CHECKING:
    from tunemill.stages.trained.config import TrainedConfig

KernelName = Literal[
    "rms_norm", "rope", "swiglu", "geglu", "lora_mlp", "lora_qkv", "lora_o", "linear_cross_entropy"
]
Source = Literal["tunemill", "liger", "cut_cross_entropy", "chunked"]

LORA = ("lora_mlp", "lora_qkv", "lora_o")
ELEMENTWISE = ("rms_norm", "rope", "swiglu", "geglu")
GATED = ("swiglu", "geglu")

LIGER = {
    "liger_rope": ("rope",),
    "liger_rms_norm": ("rms_norm",),
    "liger_glu_activation": GATED,
    "liger_layer_norm": ("layer_norm",),
    "liger_cross_entropy": ("cross_entropy",),
    "liger_fused_linear_cross_entropy": ("linear_cross_entropy",),
}
LOSS_KEYS = (
    "liger_cross_entropy",
    "liger_fused_linear_cross_entropy",
    "cut_cross_entropy",
    "chunked_cross_entropy",
)
LIGER_PLUGINS = {"liger", "axolotl.integrations.liger.LigerPlugin"}
CUT_PLUGINS = {"cut_cross_entropy", "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"}
PLUGINS = LIGER_PLUGINS | CUT_PLUGINS


@dataclass(frozen=True)
class Asked:
    """One key that insists on kernels. It is honoured when one of them runs: a model has one activation."""

    key: str
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class KernelChoice:
    """Kernel to where it comes from, and the keys that insist."""

    sources: dict[str, Source]
    asked: tuple[Asked, ...]

    def needing_gpu(self) -> list[str]:
        """Keys that insist on a kernel which runs on a GPU only."""
        return [one.key for one in self.asked if any(self.sources[name] != "chunked" for name in one.kernels)]


def choose_kernels(config: "TrainedConfig") -> KernelChoice:
    """The kernels that `config` asks for. What it insists on goes before what `kernels: auto` takes."""
    sources: dict[str, Source] = dict.fromkeys(_automatic(config), "tunemill")
    asked: list[Asked] = []
    if isinstance(config.kernels, list):
        sources = dict.fromkeys(config.kernels, "tunemill")
        asked += [Asked(f"kernels: [{name}]", (name,)) for name in config.kernels]
    for name in LORA:
        wanted = lora_keys(config)[name]
        if wanted:
            sources[name] = "tunemill"
            asked.append(Asked(f"{name}_kernel: true", (name,)))
        elif wanted is False:
            sources.pop(name, None)
    for key, names in LIGER.items():
        if liger_keys(config)[key]:
            sources |= dict.fromkeys(names, "liger")
            asked.append(Asked(f"{key}: true", names))
    if config.liger_glu_activation:
        sources.pop("lora_mlp", None)
    if cuts_cross_entropy(config):
        sources["linear_cross_entropy"] = "cut_cross_entropy"
        asked.append(Asked("cut_cross_entropy: true", ("linear_cross_entropy",)))
    if config.chunked_cross_entropy:
        sources["linear_cross_entropy"] = "chunked"
        asked.append(Asked("chunked_cross_entropy: true", ("linear_cross_entropy",)))
    if "cross_entropy" in sources:
        sources.pop("linear_cross_entropy", None)
    return KernelChoice(sources, tuple(asked))


def _automatic(config: "TrainedConfig") -> tuple[str, ...]:
    if config.kernels != "auto":
        return ()
    adapters = LORA if config.adapter is not None else ()
    # The compiler fuses what is elementwise itself, across the borders that a kernel would set it.
    elementwise = () if config.torch_compile else ELEMENTWISE
    return (*elementwise, *adapters, "linear_cross_entropy")


def lora_keys(config: "TrainedConfig") -> dict[str, bool | None]:
    """Kernel to the value of its key."""
    values = (config.lora_mlp_kernel, config.lora_qkv_kernel, config.lora_o_kernel)
    return dict(zip(LORA, values, strict=True))


def liger_keys(config: "TrainedConfig") -> dict[str, bool]:
    """Liger's keys and their values."""
    return {
        "liger_rope": config.liger_rope,
        "liger_rms_norm": config.liger_rms_norm,
        "liger_glu_activation": config.liger_glu_activation,
        "liger_layer_norm": config.liger_layer_norm,
        "liger_cross_entropy": config.liger_cross_entropy,
        "liger_fused_linear_cross_entropy": config.liger_fused_linear_cross_entropy,
    }


def cuts_cross_entropy(config: "TrainedConfig") -> bool:
    """Whether Cut Cross Entropy computes the loss: its plugin is enough, as in Axolotl."""
    if config.cut_cross_entropy is not None:
        return config.cut_cross_entropy
    return bool(CUT_PLUGINS & set(config.plugins))


def check_kernels(config: "TrainedConfig") -> None:
    """Raise ConflictError where keys of kernels exclude each other, or have no effect."""
    chosen = config.kernels if isinstance(config.kernels, list) else []
    lora = {f"{name}_kernel": name for name, wanted in lora_keys(config).items() if wanted}
    if config.adapter is None and (lora or set(chosen) & set(LORA)):
        keys = list(lora) or ["kernels"]
        names = ", ".join(lora or sorted(set(chosen) & set(LORA)))
        raise ConflictError(
            f"{names}: a kernel for adapters, but adapter is unset, so every parameter is trained. Set adapter: lora, "
            f"or remove it",
            "adapter",
            *keys,
        )
    if config.kernels == "off" and lora:
        raise ConflictError(
            f"kernels: off and {', '.join(lora)}: true exclude each other. Remove one", "kernels", *lora
        )
    for key, name in (
        (f"{name}_kernel", name) for name, wanted in lora_keys(config).items() if wanted is False
    ):
        if name in chosen:
            raise ConflictError(f"{key}: false, but kernels names {name}. Remove one", key, "kernels")
    _check_liger(config, chosen, lora)
    _check_loss(config, chosen)


def _check_liger(config: "TrainedConfig", chosen: list[KernelName], lora: dict[str, str]) -> None:
    if LIGER_PLUGINS & set(config.plugins) and not any(liger_keys(config).values()):
        raise ConflictError(
            "plugins names Liger, but no liger_* key asks for a kernel of it, so it has no effect. Set one, or remove "
            "the plugin",
            "plugins",
        )
    if config.liger_glu_activation and ("lora_mlp" in chosen or "lora_mlp_kernel" in lora):
        raise ConflictError(
            "liger_glu_activation and the lora_mlp kernel both compute the activation of the MLP. Remove one",
            "liger_glu_activation",
            "lora_mlp_kernel" if "lora_mlp_kernel" in lora else "kernels",
        )
    for key, names in LIGER.items():
        both = sorted(set(names) & set(chosen))
        if liger_keys(config)[key] and both:
            raise ConflictError(
                f"{key}: true and kernels: {both} both compute it. Remove one", key, "kernels"
            )


def _check_loss(config: "TrainedConfig", chosen: list[KernelName]) -> None:
    values = (
        config.liger_cross_entropy,
        config.liger_fused_linear_cross_entropy,
        cuts_cross_entropy(config),
        config.chunked_cross_entropy,
    )
    keys = [key for key, value in zip(LOSS_KEYS, values, strict=True) if value]
    if "linear_cross_entropy" in chosen:
        keys.append("kernels")
    if len(keys) > 1:
        raise ConflictError(f"{' and '.join(keys)}: each computes the loss. Keep one", *keys)
    if config.chunked_cross_entropy_num_chunks is not None and not config.chunked_cross_entropy:
        raise ConflictError(
            "chunked_cross_entropy_num_chunks is only read with chunked_cross_entropy: true. Set that, or remove it",
            "chunked_cross_entropy_num_chunks",
        )
