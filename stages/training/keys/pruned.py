"""`llmcompressor`: weights that were pruned before stay zero. Facts: Axolotl's plugin, ConstantPruningModifier."""

import re
from collections.abc import Iterator
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from tunemill.stages.declaration import ConflictError, Settings, StageConfig

MODIFIER = "ConstantPruningModifier"
# What llm-compressor calls the groups in which a recipe has its modifiers.
GROUP_ENDINGS = ("_stage", "_modifiers", "modifiers")
PATTERN = "re:"
PRUNABLE, ALL = "__ALL_PRUNABLE__", "__ALL__"
STORED = (
    "compressed-tensors stores zeros no more tightly than other numbers any more, and vLLM reads no such file. Take it "
    "out; for a smaller file write pipeline: {export: [{format: compressed-tensors, scheme: fp8-dynamic}]}, where "
    "zeros stay zero"
)


class SparsitySettings(Settings):
    """Which weights stay zero where they are zero before the first step."""

    recipe: dict[str, Any] = Field(
        description="{finetuning_stage: {finetuning_modifiers: {ConstantPruningModifier: {targets: [...]}}}}; targets "
        "are names of modules or of their weights, re: and a regular expression of such, or a class such as Linear"
    )
    save_compressed: bool | None = Field(None, description="false; such files are read by nothing any more")

    @field_validator("recipe", mode="after")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        list(_targets(value))
        return value

    @field_validator("save_compressed", mode="after")
    @classmethod
    def _stored(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError(f"true: {STORED}")
        return value

    @property
    def targets(self) -> list[str]:
        """What the recipe names, in its order."""
        return list(_targets(self.recipe))


def _targets(recipe: dict[str, Any]) -> Iterator[str]:
    """The targets of all modifiers. Raises ValueError for a recipe that asks for anything else."""
    if not recipe:
        raise ValueError(
            f"it has no modifier. Write {{finetuning_modifiers: {{{MODIFIER}: {{targets: [Linear]}}}}}}"
        )
    for name, held in recipe.items():
        if name.endswith(GROUP_ENDINGS) and isinstance(held, dict):
            yield from _targets(held)
        elif name == MODIFIER and isinstance(held, dict):
            yield from _of_modifier(held)
        else:
            raise ValueError(
                f"{name}: while training, {MODIFIER} alone is honoured, in groups such as finetuning_modifiers. To "
                f"quantize what was trained write pipeline: {{export: [{{format: compressed-tensors, scheme: w8a8}}]}}"
            )


def _of_modifier(held: dict[str, Any]) -> list[str]:
    for key, value in held.items():
        if key not in ("targets", "start", "end"):
            raise ValueError(f"{MODIFIER}: {key}: it has targets, and start: 0")
        if key != "targets" and value not in (None, -1, 0 if key == "start" else None):
            raise ValueError(
                f"{MODIFIER}: {key}: {value}: weights are kept at zero from the first step to the last. Take it out"
            )
    given = held.get("targets")
    named = [given] if isinstance(given, str) else given
    if not isinstance(named, list) or not named or not all(isinstance(one, str) for one in named):
        raise ValueError(
            f"{MODIFIER}: targets: is a list of names, such as ['re:.*_proj.weight'], or [Linear]"
        )
    for one in named:
        if one == ALL:
            raise ValueError(f"{MODIFIER}: targets: {ALL} is none of llm-compressor's any more. Write Linear")
        if one.startswith(PATTERN):
            try:
                re.compile(one.removeprefix(PATTERN))
            except re.error as error:
                raise ValueError(
                    f"{MODIFIER}: targets: {one}: no valid regular expression: {error}"
                ) from None
    return named


class PrunedKeys(StageConfig):
    """Training on of a model whose weights are zero here and there."""

    llmcompressor: SparsitySettings | None = Field(
        None, description="keep the weights at zero that are zero before the first step"
    )

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is trained, in place of the model's own weights."""
        return False

    @model_validator(mode="after")
    def _check_pruned(self) -> Self:
        if self.llmcompressor is not None and self.has_adapter:
            raise ConflictError(
                "llmcompressor: an adapter moves none of the model's weights, and folded in it would fill their zeros. "
                "Remove adapter, or llmcompressor",
                "llmcompressor",
                "adapter",
            )
        return self
