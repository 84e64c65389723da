"""What the tokenized stage reads: an entry of `datasets:`, and the top-level keys beside it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from tunemill.stages.data.conversations.chat_template import TemplateName, check_template_keys
from tunemill.stages.data.conversations.format_strings import check_format_strings
from tunemill.stages.data.conversations.keys import MISTRAL_COMMON, MISTRAL_KEY, ConversationKeys
from tunemill.stages.data.engines.keys import EngineKeys
from tunemill.stages.data.rows.report_key import DESCRIPTION, DataReport
from tunemill.stages.data.tokenized.format_table import FAMILIES, FORMATS, plain_name, unknown
from tunemill.stages.declaration import (
    CodeMark,
    ConflictError,
    Entry,
    EntryOrTop,
    GraphMark,
    Runtime,
    Settings,
    TextOrFile,
    YamlMark,
)

EndRule = Literal["all", "turn", "last", "none"]

# Keys that only one format reads; the rows that user code makes may be conversations and raw text too.
COMPLETION_KEYS = ("field",)
ALPACA_CHAT_KEYS = ("conversation",)
STEPWISE_KEYS = ("step_separator", "max_completion_length", "train_on_last_step_only")
CHAT_KEYS = (
    "chat_template",
    "chat_template_jinja",
    "field_messages",
    "field_system",
    "field_tools",
    "field_thinking",
    "template_thinking_key",
    "split_thinking",
    "field_human",
    "field_model",
    "message_field_role",
    "message_field_content",
    "message_field_training",
    "message_field_training_detail",
    "message_property_mappings",
    "roles",
    "roles_to_train",
    "train_on_eos",
    "train_on_eot",
    "drop_system_message",
)


class UserDefinedType(Settings):
    """`type:` as a mapping: fields, and Python format strings that put them together."""

    system_prompt: str = Field("", description="system text of rows without their own")
    system_format: str = Field("{system}", description="format of the system text; knows {system}")
    field_system: str = Field("system", description="field of the system text")
    field_instruction: str = Field("instruction", description="field of the instruction")
    field_input: str = Field("input", description="field of the further input")
    field_output: str = Field("output", description="field of the text to be learnt")
    format: str = Field(
        "{instruction} {input} ", description="format of the prompt; knows {instruction} and {input}"
    )
    no_input_format: str = Field(
        "{instruction} ", description="format of the prompt of a row without input; knows {instruction}"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_format_strings(
            {
                "system_format": (self.system_format, ("system",)),
                "format": (self.format, ("instruction", "input")),
                "no_input_format": (self.no_input_format, ("instruction",)),
            }
        )
        return self


class TokenizedConfig(ConversationKeys, EngineKeys):
    """How the rows of one dataset become token ids and labels."""

    path: Runtime[Entry[str | None]] = Field(
        None, description="where the rows came from: named in error messages and nowhere else"
    )
    type: Entry[str | UserDefinedType | None] = Field(
        None,
        description=f"format of the rows: {', '.join(FAMILIES)}, a mapping of fields and format strings, or a function "
        "of your own (module.function); unset: the rows are tokens already",
    )
    type_code: Annotated[Entry[list[str] | None], CodeMark(of="type")] = Field(
        None, description="the files of your own function"
    )
    today: Annotated[Runtime[str | None], GraphMark()] = Field(
        None,
        description="the day that chat templates see, where chat_template_kwargs names none: recorded with the rows, "
        "and no part of the key, for then every new day would compute everything again",
    )
    dataset_num_proc: Runtime[PositiveInt | None] = Field(
        None, description="processes that tokenize, unset one per core: changes the time, not the rows"
    )
    bad_rows: Annotated[Literal["stop", "skip"], YamlMark("pipeline.bad_rows")] = Field(
        "stop", description="what happens after bad rows: stop listing them, or set them aside and go on"
    )

    data_report: DataReport = Field("cheap", description=DESCRIPTION)

    field: Entry[str | None] = Field(None, description="completion: field of the text; unset means text")
    conversation: Entry[Literal["instruct", "chat", "chatml", "phi"] | None] = Field(
        None, description="alpaca_chat: style of the prompt; unset means chat"
    )
    step_separator: Entry[str] = Field("\n", description="stepwise_supervised: text that ends each step")
    max_completion_length: Entry[PositiveInt | None] = Field(
        None, description="stepwise_supervised: tokens of all steps of a row at most, the rest is cut off"
    )
    train_on_last_step_only: Entry[bool] = Field(
        False, description="stepwise_supervised: only the last step is trained on"
    )

    chat_template: Entry[TemplateName | None] = Field(
        None,
        description="chat template of this dataset; unset means the tokenizer's, chosen at the top level",
    )
    chat_template_jinja: Entry[TextOrFile[str | None]] = Field(
        None, description="this dataset's Jinja chat template: its text, or the path of a file with it"
    )
    template_name: Runtime[Annotated[str | None, YamlMark("chat_template")]] = Field(
        None, description="the tokenizer's chat template: named in error messages and nowhere else"
    )
    tokenizer_use_mistral_common: bool | None = Field(
        None, description="mistral-common renders conversations in place of a chat template"
    )
    chat_template_kwargs: EntryOrTop[dict[str, Any]] = Field(
        {},
        description="variables given to the chat template; those of a dataset stand for those of the top level",
    )
    eot_tokens: list[str] | None = Field(
        None, description="tokens that end a turn; unset means the tokenizer's EOS token"
    )
    train_on_eos: Entry[EndRule] = Field(
        "turn",
        description="EOS trained on: at the end of every turn, of trained turns, the last such, or none",
    )
    train_on_eot: Entry[EndRule | None] = Field(
        None, description="the same for eot_tokens; unset means as train_on_eos"
    )

    @field_validator("type")
    @classmethod
    def _plain_name(cls, value: str | UserDefinedType | None) -> str | UserDefinedType | None:
        return plain_name(value) if isinstance(value, str) else value

    @field_validator("tokenizer_use_mistral_common")
    @classmethod
    def _false_is_unset(cls, value: bool | None) -> bool | None:
        return value or None

    @property
    def is_code(self) -> bool:
        """Whether `type` names a function of the user's own."""
        return isinstance(self.type, str) and self.type not in FORMATS

    def used_libraries(self) -> tuple[str, ...]:
        """mistral-common, where it renders."""
        renders = self.tokenizer_use_mistral_common and (self.type == "chat_template" or self.is_code)
        return (*super().used_libraries(), *((MISTRAL_COMMON, "tiktoken") if renders else ()))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.is_code and not self.type_code:
            raise unknown(str(self.type))
        self._check_belonging("chat_template", CHAT_KEYS)
        self._check_belonging("completion", COMPLETION_KEYS)
        self._check_belonging("alpaca_chat", ALPACA_CHAT_KEYS)
        self._check_belonging("stepwise_supervised", STEPWISE_KEYS)
        if self.type == "stepwise_supervised" and self.train_on_inputs:
            raise ConflictError(
                "train_on_inputs: true does not go with type: stepwise_supervised: only the ends of steps have a class",
                "train_on_inputs",
                "type",
            )
        check_template_keys(self.chat_template, self.chat_template_jinja)
        if self.tokenizer_use_mistral_common:
            self._check_mistral()
        return self

    def _check_mistral(self) -> None:
        """Raises ConflictError for what only a chat template can do."""
        for key in ("chat_template", "chat_template_jinja", "chat_template_kwargs"):
            if getattr(self, key):
                raise ConflictError(
                    f"{key} does not go with {MISTRAL_KEY}: true: mistral-common renders conversations by rules of its "
                    "own, without a template. Remove one",
                    key,
                    MISTRAL_KEY,
                )

    def _check_belonging(self, owner: str, keys: tuple[str, ...]) -> None:
        if self.type == owner or (self.is_code and owner in ("chat_template", "completion")):
            return
        for key in keys:
            if key in self.model_fields_set:
                given = (
                    f"type: {self.type}"
                    if isinstance(self.type, str)
                    else "a mapping"
                    if self.type
                    else "none"
                )
                raise ConflictError(f"{key} is only used with type: {owner}, not with {given}", key, "type")
