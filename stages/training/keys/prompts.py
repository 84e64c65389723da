"""The keys of LLaMA-Adapter: prompts that the attention of the upper layers looks at, each layer with its own."""

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import Settings, StageConfig


class PromptSettings(Settings):
    """`peft_adapter`: how many prompts there are, and in how many layers."""

    layers: PositiveInt | None = Field(None, description="layers that get prompts, counted from the last one")
    len: PositiveInt | None = Field(None, description="prompts in each of these layers")


class PromptKeys(StageConfig):
    """Train prompts in place of low-rank factors."""

    peft_adapter: PromptSettings | None = Field(
        None,
        description="with adapter: llama-adapter: layers, how many get prompts; len, how many prompts each gets",
    )

    @property
    def prompts(self) -> PromptSettings:
        """How many prompts there are, and where."""
        return self.peft_adapter or PromptSettings()
