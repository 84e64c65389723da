"""The key that says what makes tokens of texts."""

from typing import Annotated, Literal

from pydantic import Field

from tunemill.stages.declaration import Runtime, StageConfig, YamlMark


class EngineKeys(StageConfig):
    """What makes tokens of texts."""

    tokenizer_engine: Annotated[
        Runtime[Literal["auto", "tokenizers"]], YamlMark("pipeline.tokenizer_engine")
    ] = Field(
        "auto",
        description="the library that tokenizes; auto: gigatoken where it is proven to agree with tokenizers: changes "
        "the time, not the rows",
    )
