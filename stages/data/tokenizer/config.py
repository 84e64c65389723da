"""What the tokenizer stage reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from tunemill.stages.data.conversations.chat_template import TemplateName, check_template_keys
from tunemill.stages.data.tokenizer.folder import fault_of_folder
from tunemill.stages.declaration import ConflictError, Fault, Settings, Source, StageConfig, TextOrFile


class SpecialTokens(Settings):
    """Tokens with a role. A token that the vocabulary lacks is added to it."""

    bos_token: str | None = Field(None, description="stands at the beginning of a text")
    eos_token: str | None = Field(None, description="ends a text, and a turn")
    pad_token: str | None = Field(None, description="fills up a batch; never trained on")
    unk_token: str | None = Field(None, description="stands for what the vocabulary lacks")
    additional_special_tokens: list[str] | None = Field(None, description="further tokens never split")


class TokenizerConfig(StageConfig):
    """Where the tokenizer comes from, what is added to it, and its chat template."""

    base_model: Source[str | None] = Field(None, description="local model folder whose tokenizer is used")
    tokenizer_config: Source[str | None] = Field(
        None, description="local folder of another tokenizer, used instead of the model's own"
    )
    tokenizer_type: str | None = Field(
        None, description="class of the tokenizer; the one that its files name, or AutoTokenizer"
    )
    special_tokens: SpecialTokens = Field(SpecialTokens(), description="tokens with a role")
    tokens: list[str] = Field([], description="tokens added to the vocabulary")
    chat_template: TemplateName | None = Field(
        None,
        description="chat template by name: one of a family of models, tokenizer_default (the tokenizer's own), "
        "tokenizer_default_fallback_<name> (that, or else the named one), or jinja; unset keeps the tokenizer's own",
    )
    chat_template_jinja: TextOrFile[str | None] = Field(
        None, description="Jinja chat template: its text, or the path of a file with it"
    )

    def faults(self) -> Iterator[Fault]:
        """A folder that holds no tokenizer."""
        yield from super().faults()
        key = "base_model" if self.tokenizer_config is None else "tokenizer_config"
        folder = self.tokenizer_config or self.base_model
        if folder is not None and Path(folder).exists() and (reason := fault_of_folder(Path(folder))):
            yield Fault(key, reason)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_template_keys(self.chat_template, self.chat_template_jinja)
        if any(not token for token in self.tokens):
            raise ConflictError("tokens: holds an empty string, which cannot be a token", "tokens")
        return self
