"""What the `prompts` stage reads: an entry of `datasets:`, and the top-level keys beside it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tunemill.stages.data.conversations.keys import MISTRAL_KEY
from tunemill.stages.data.prompts.answered import NOT_YET, READERS, WHOLE_TEXTS
from tunemill.stages.declaration import (
    CodeMark,
    ConflictError,
    Entry,
    GraphMark,
    Runtime,
    StageConfig,
    YamlMark,
)

# Formats of rows whose messages are rendered.
TYPES = ("chat_template", "chat_template.default")


class PromptsConfig(StageConfig):
    """How the rows of one dataset become prompts, and columns for the rewards."""

    path: Runtime[Entry[str | None]] = Field(
        None, description="where the rows came from: named in error messages and nowhere else"
    )
    type: Entry[str | None] = Field(
        None,
        description="unset: rows have a `prompt`, a text or messages; chat_template: messages in field_messages, of "
        "which those behind the last question are left out; Axolotl's types for rl: ebft (ebft_opencode.transform and "
        "others), which make a `prompt` and its `ground_truth`; or `my_module.function`, which makes rows with a "
        "`prompt`",
    )
    type_code: Annotated[
        Entry[list[str] | None], CodeMark(of="type", known=frozenset((*TYPES, *READERS)))
    ] = Field(None, description="the files of the function that `type` names")
    field_messages: Entry[str] = Field("messages", description="type: chat_template: field of the messages")
    chat_template_kwargs: dict[str, Any] = Field({}, description="variables given to the chat template")
    rewards_chat_template_kwargs: Annotated[dict[str, Any], YamlMark("trl.chat_template_kwargs")] = Field(
        {}, description="the same, by the name of TRL; these go before the others"
    )
    today: Annotated[Runtime[str | None], GraphMark()] = Field(
        None,
        description="the day that chat templates see, where chat_template_kwargs names none: recorded with the rows, "
        "and no part of the key, for then every new day would compute everything again",
    )
    needs_answer: Annotated[bool, GraphMark()] = Field(
        False, description="whether each row must have a ground_truth: completions are compared with it"
    )
    needs_prompt: Annotated[Runtime[bool], GraphMark()] = Field(
        False, description="whether each row must have a prompt: the model is asked it"
    )
    bad_rows: Annotated[Literal["stop", "skip"], YamlMark("pipeline.bad_rows")] = Field(
        "stop", description="what happens after bad rows: stop listing them, or set them aside and go on"
    )
    tokenizer_use_mistral_common: Runtime[bool | None] = Field(
        None, description="refused where it is true: mistral-common renders whole conversations only"
    )

    @property
    def variables(self) -> dict[str, Any]:
        """What the chat template is given."""
        return {**self.chat_template_kwargs, **self.rewards_chat_template_kwargs}

    @property
    def is_own(self) -> bool:
        """Whether a function of the user's makes the rows."""
        return self.type_code is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type is not None and self.type in NOT_YET and not self.is_own:
            raise ConflictError(f"type: {self.type}: {NOT_YET[self.type]}", "type")
        if self.type is not None and self.type not in (*TYPES, *READERS) and not self.is_own:
            raise ConflictError(
                f"type: {self.type} is no format of prompts. Take it out for rows with a `prompt`, write chat_template "
                f"for rows of messages, or name the function of a Python file beside the YAML (my_module.my_function)",
                "type",
                suggestion=TYPES[0] if self.type.startswith("chat") else None,
            )
        if self.needs_prompt and self.type == WHOLE_TEXTS and not self.is_own:
            raise ConflictError(
                f"type: {WHOLE_TEXTS} makes documents without a prompt, of which a model can be asked nothing. Use "
                f"ebft_strided_structured.transform, whose rows have an input, or rl: ebft with ebft.mode: strided",
                "type",
            )
        if "field_messages" in self.model_fields_set and self.type not in TYPES:
            raise ConflictError(
                "field_messages is only read with type: chat_template", "field_messages", "type"
            )
        if self.tokenizer_use_mistral_common:
            raise ConflictError(
                f"{MISTRAL_KEY}: true does not go with prompts: mistral-common renders whole conversations, not "
                f"prompts alone. Take it out: then transformers reads the same tokenizer",
                MISTRAL_KEY,
            )
        return self
