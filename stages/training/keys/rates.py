"""The keys of learning rates that are not the same for all parameters, and of a filter over gradients."""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from tunemill.stages.declaration import ConflictError, Idle, Settings, StageConfig

GROKFAST_PLUGINS = {"grokfast", "axolotl.integrations.grokfast.GrokfastPlugin"}
# As in Axolotl and PEFT, where the YAML does not say.
GROKFAST_ALPHA, GROKFAST_LAMB = 0.98, 2.0
LORAPLUS_EMBEDDING = 1e-6


class RateGroup(Settings):
    """Parameters whose names hold one of `modules` have the learning rate `lr`."""

    name: str = Field(description="a name for these parameters, which messages use")
    modules: list[str] = Field(
        min_length=1, description="parts of the names of modules, such as self_attn.q_proj"
    )
    lr: PositiveFloat = Field(description="their peak learning rate")


class RateKeys(StageConfig):
    """Who has another learning rate."""

    lr_groups: list[RateGroup] | None = Field(
        None, description="modules with another learning rate: a list of {name, modules, lr}"
    )
    embedding_lr: PositiveFloat | None = Field(
        None, description="learning rate of embeddings and output head; unset: learning_rate"
    )
    embedding_lr_scale: PositiveFloat | None = Field(
        None, description="learning rate of embeddings and output head over learning_rate"
    )
    loraplus_lr_ratio: PositiveFloat | None = Field(
        None, description="LoRA+: learning rate of an adapter's second factor over that of its first"
    )
    loraplus_lr_embedding: PositiveFloat | None = Field(
        None, description="LoRA+: learning rate of an embedding's adapter; unset: 1e-6"
    )
    grokfast_alpha: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="plugin Grokfast: how much of the mean of older gradients stays; unset: 0.98",
    )
    grokfast_lamb: NonNegativeFloat | None = Field(
        None, description="plugin Grokfast: weight of that mean beside the gradient; unset: 2"
    )

    @property
    def varies_rates(self) -> str | None:
        """The first key that gives some parameters another learning rate."""
        keys = {
            "lr_groups": self.lr_groups,
            "embedding_lr": self.embedding_lr,
            "embedding_lr_scale": self.embedding_lr_scale,
            "loraplus_lr_ratio": self.loraplus_lr_ratio,
        }
        return next((key for key, value in keys.items() if value), None)

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        if self.embedding_lr and self.embedding_lr_scale:
            raise ConflictError(
                "embedding_lr and embedding_lr_scale both set the learning rate of embeddings. Keep one",
                "embedding_lr",
                "embedding_lr_scale",
            )
        others = [key for key in ("lr_groups", "embedding_lr", "embedding_lr_scale") if getattr(self, key)]
        if self.loraplus_lr_ratio and others:
            raise ConflictError(
                f"loraplus_lr_ratio and {others[0]} both set learning rates. Keep one",
                "loraplus_lr_ratio",
                *others,
            )
        names = [group.name for group in self.lr_groups or []]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConflictError(f'lr_groups: two groups have the name "{twice}". Rename one', "lr_groups")
        return self

    def idle(self) -> Iterator[Idle]:
        """What belongs to LoRA+ without LoRA+."""
        yield from super().idle()
        if self.loraplus_lr_embedding and not self.loraplus_lr_ratio:
            yield Idle("loraplus_lr_embedding", "loraplus_lr_ratio is unset, so there is no LoRA+")
