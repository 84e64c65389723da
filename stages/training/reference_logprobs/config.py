"""What the `reference_logprobs` stage reads from the YAML."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import GraphMark, ModelSource
from tunemill.stages.training.keys.attention import AttentionKeys
from tunemill.stages.training.keys.precision import PrecisionKeys


class ReferenceConfig(PrecisionKeys, AttentionKeys):
    """How the model is computed that a training compares with: as the training computes its own."""

    sequence_len: PositiveInt = Field(
        512, description="most tokens of a prompt with either answer, BOS and EOS counted: more are cut off"
    )
    micro_batch_size: PositiveInt = Field(
        1,
        description="rows per forward pass: those of the first epoch, so that its numbers are the same to the bit",
    )
    adapter: Literal["lora", "qlora", "llama-adapter"] | None = Field(
        None, description="the kind of adapter that is trained beside the model"
    )
    lora_model_dir: ModelSource[str | None] = Field(
        None,
        description="local folder of a stored adapter that is trained further: then it is part of the reference",
    )
    has_stored_adapter: Annotated[bool, GraphMark()] = Field(
        False, description="whether another node gives an adapter that is trained further"
    )

    @property
    def has_factors(self) -> bool:
        """Whether low-rank factors are trained beside the model."""
        return self.adapter in ("lora", "qlora")
