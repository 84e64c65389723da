"""What the tokenizer stage reads."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from tunemill.stages.artifacts import TEKKEN
from tunemill.stages.data.conversations.chat_template import TemplateName, check_template_keys
from tunemill.stages.data.conversations.keys import MISTRAL_COMMON, MISTRAL_KEY
from tunemill.stages.data.tokenizer.folder import (
    fault_for_llama_cpp,
    fault_of_folder,
    fault_of_tekken,
    vocabulary_of,
)
from tunemill.stages.declaration import (
    ConflictError,
    Fault,
    Idle,
    ModelSource,
    Runtime,
    Settings,
    StageConfig,
    TextOrFile,
    YamlMark,
)
from tunemill.stages.models.exports import GGUF
from tunemill.stages.models.prompts import LLAMA_ADAPTER

MISTRAL_MISSING = (
    "true needs the package mistral-common, which is not installed. Install it: pip install "
    "'tunemill[mistral]'"
)


class SpecialTokens(Settings):
    """Tokens with a role. A token that the vocabulary lacks is added to it."""

    bos_token: str | None = Field(None, description="stands at the beginning of a text")
    eos_token: str | None = Field(None, description="ends a text, and a turn")
    pad_token: str | None = Field(None, description="fills up a batch; never trained on")
    unk_token: str | None = Field(None, description="stands for what the vocabulary lacks")
    additional_special_tokens: list[str] | None = Field(None, description="further tokens never split")

    @property
    def trained(self) -> list[str]:
        """Those that a model reads or says; padding it does neither."""
        named = [self.bos_token, self.eos_token, self.unk_token, *(self.additional_special_tokens or [])]
        return [token for token in named if token is not None]


def untrained(tokens: Sequence[str]) -> str:
    """Why new tokens are refused beside an adapter."""
    return (
        f"special_tokens: {', '.join(tokens)}: not in the tokenizer, so each adds a row to the embeddings, which an "
        "adapter does not train. Set lora_modules_to_save to the names of embeddings and output head, for most models "
        "[embed_tokens, lm_head]; or peft_trainable_token_indices to their ids; or use tokens that there are"
    )


class TokenizerConfig(StageConfig):
    """Where the tokenizer comes from, what is added to it, and its chat template."""

    base_model: ModelSource[str | None] = Field(
        None, description="local model folder whose tokenizer is used"
    )
    tokenizer_config: ModelSource[str | None] = Field(
        None, description="local folder of another tokenizer, used instead of the model's own"
    )
    tokenizer_type: str | None = Field(
        None, description="class of the tokenizer; the one that its files name, or AutoTokenizer"
    )
    tokenizer_use_fast: Runtime[bool | None] = Field(
        None,
        description="true asks for what happens anyway: without a tokenizer.json, as false asks, nothing is made",
    )
    tokenizer_legacy: bool | None = Field(
        None,
        description="for tokenizers made of sentencepiece: the old treatment of spaces behind special tokens",
    )
    tokenizer_save_jinja_files: bool | None = Field(
        None,
        description="false keeps the chat template in tokenizer_config.json; unset and true, in a file of its own",
    )
    tokenizer_use_mistral_common: bool | None = Field(
        None,
        description="take the tekken.json, and let mistral-common render conversations in place of a chat template",
    )
    special_tokens: SpecialTokens = Field(SpecialTokens(), description="tokens with a role")
    tokens: list[str] = Field([], description="tokens added to the vocabulary")
    added_tokens_overrides: dict[int, str] = Field(
        {}, description="other texts for added tokens, such as reserved ones: id of the token to its text"
    )
    chat_template: TemplateName | None = Field(
        None,
        description="chat template by name: one of a family of models, tokenizer_default (the tokenizer's own), "
        "tokenizer_default_fallback_<name> (that, or else the named one), or jinja; unset keeps the tokenizer's own",
    )
    chat_template_jinja: TextOrFile[str | None] = Field(
        None, description="Jinja chat template: its text, or the path of a file with it"
    )

    exports: Annotated[Runtime[list[dict[str, Any]]], YamlMark("pipeline.export")] = Field(
        [], description="a tokenizer that llama.cpp does not know is refused: no result depends on it"
    )
    adapter: Runtime[str | None] = Field(
        None,
        description="with an adapter new tokens are refused that nothing trains: no result depends on it",
    )
    lora_modules_to_save: Runtime[list[str] | None] = Field(
        None,
        description="modules trained whole, so new tokens are trained with them: no result depends on it",
    )
    peft_trainable_token_indices: Runtime[list[int] | dict[str, list[int]] | None] = Field(
        None, description="tokens that are trained beside an adapter, new ones too: no result depends on it"
    )

    @property
    def leaves_new_tokens_untrained(self) -> bool:
        """Whether an adapter is trained and the rows of new tokens are not."""
        if self.adapter in (None, LLAMA_ADAPTER):
            return self.adapter is not None
        return not (self.lora_modules_to_save or self.peft_trainable_token_indices)

    def semantic(self) -> dict[str, Any]:
        """As in the base class; and whether new tokens would be refused, which another pipeline may not have asked."""
        refuses = bool(self.leaves_new_tokens_untrained and self.special_tokens.trained)
        return super().semantic() | ({"refuses_new_tokens": True} if refuses else {})

    @field_validator("tokenizer_use_fast")
    @classmethod
    def _fast_alone(cls, value: bool | None) -> bool | None:
        if value is False:
            raise ValueError(
                "false asks for a tokenizer without tokenizer.json, and Tunemill needs one to know which tokens stand "
                "for which characters; take the key out"
            )
        return value

    def used_libraries(self) -> tuple[str, ...]:
        """mistral-common, where it makes the tokenizer."""
        return (*super().used_libraries(), *((MISTRAL_COMMON,) if self.tokenizer_use_mistral_common else ()))

    def idle(self) -> Iterator[Idle]:
        """Settings that ask for what happens anyway."""
        yield from super().idle()
        if self.tokenizer_use_fast:
            yield Idle("tokenizer_use_fast", "only tokenizers with tokenizer.json are used")
        if self.tokenizer_save_jinja_files:
            yield Idle("tokenizer_save_jinja_files", "the chat template is a file of its own anyway")
        if self.tokenizer_use_mistral_common is False:
            yield Idle("tokenizer_use_mistral_common", "mistral-common is not used anyway")

    def faults(self) -> Iterator[Fault]:
        """A folder that holds no tokenizer, or one that lacks tokens which nothing would train."""
        yield from super().faults()
        key = "base_model" if self.tokenizer_config is None else "tokenizer_config"
        folder = self.tokenizer_config or self.base_model
        fault = fault_of_tekken if self.tokenizer_use_mistral_common else fault_of_folder
        if folder is not None and Path(folder).exists() and (reason := fault(Path(folder))):
            yield Fault(key, reason)
            return
        if self.tokenizer_use_mistral_common:
            if find_spec("mistral_common") is None:
                yield Fault(MISTRAL_KEY, MISTRAL_MISSING)
            return
        is_exported = any(export.get("format") == GGUF for export in self.exports)
        if folder is not None and is_exported and (reason := fault_for_llama_cpp(Path(folder))):
            yield Fault("exports", reason)
            return
        if folder is None or not self.leaves_new_tokens_untrained or not self.special_tokens.trained:
            return
        known = vocabulary_of(Path(folder))
        if known is not None and (new := [one for one in self.special_tokens.trained if one not in known]):
            yield Fault("special_tokens", untrained(new))

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_template_keys(self.chat_template, self.chat_template_jinja)
        if self.tokenizer_use_mistral_common:
            self._check_mistral()
        if any(not token for token in self.tokens):
            raise ConflictError("tokens: holds an empty string, which cannot be a token", "tokens")
        return self

    def _check_mistral(self) -> None:
        """Raises ConflictError for what cannot be done to a tekken.json, and for another renderer."""
        fixed = {
            "special_tokens": self.special_tokens.model_dump(exclude_none=True),
            "tokens": self.tokens,
            "added_tokens_overrides": self.added_tokens_overrides,
        }
        refused = {
            **dict.fromkeys(
                fixed, "a tekken.json has a fixed vocabulary, whose special tokens have fixed roles"
            ),
            **dict.fromkeys(
                ("chat_template", "chat_template_jinja"),
                "mistral-common renders conversations by rules of its own",
            ),
            "tokenizer_type": f"the tokenizer is made of the {TEKKEN}",
            "tokenizer_legacy": f"it is about sentencepiece, and the tokenizer is made of the {TEKKEN}",
        }
        for key, reason in refused.items():
            value = fixed[key] if key in fixed else getattr(self, key)
            if value not in (None, [], {}, "AutoTokenizer"):
                raise ConflictError(
                    f"{key} does not go with tokenizer_use_mistral_common: true: {reason}. Remove one",
                    key,
                    MISTRAL_KEY,
                )
