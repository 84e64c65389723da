"""What the tokenized stage reads: an entry of `datasets:`, and the top-level keys beside it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from tunemill.stages.declaration import ConflictError, Entry, Runtime, Settings, StageConfig, YamlMark
from tunemill.stages.tokenized.format_table import FORMATS
from tunemill.stages.tokenizer.chat_template import TemplateName, check_template_keys

EndRule = Literal["all", "turn", "last", "none"]

COMPLETION_KEYS = ("field",)
CHAT_KEYS = (
    "chat_template",
    "chat_template_jinja",
    "field_messages",
    "field_system",
    "field_tools",
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
    field_system: str | None = Field(None, description="field of the system text")
    field_instruction: str = Field("instruction", description="field of the instruction")
    field_input: str | None = Field("input", description="field of the further input")
    field_output: str = Field("output", description="field of the text to be learnt")
    format: str = Field(description="format of the prompt; knows {instruction} and {input}")
    no_input_format: str | None = Field(
        None,
        description="format of the prompt of a row without input; knows {instruction}; unset means format",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = {
            "system_format": {"system": ""},
            "format": {"instruction": "", "input": ""},
            "no_input_format": {"instruction": "", "input": ""},
        }
        for key, fields in known.items():
            text = getattr(self, key)
            try:
                (text or "").format(**fields)
            except (KeyError, IndexError, ValueError, AttributeError):
                names = " and ".join(f"{{{name}}}" for name in fields)
                raise ConflictError(
                    f"{key}: {text!r} is not a format string that uses {names} only; "
                    "a brace that should stay is written twice",
                    "type",
                ) from None
        return self


class TokenizedConfig(StageConfig):
    """How the rows of one dataset become token ids and labels."""

    path: Runtime[Entry[str | None]] = Field(
        None, description="where the rows came from: named in error messages and nowhere else"
    )
    type: Entry[str | UserDefinedType] = Field(
        description=f"format of the rows: {', '.join(FORMATS)}, or a mapping of fields and format strings"
    )
    dataset_num_proc: Runtime[PositiveInt | None] = Field(
        None, description="threads that tokenize, unset one per core: changes the time, not the rows"
    )
    bad_rows: Annotated[Literal["stop", "skip"], YamlMark("pipeline.bad_rows")] = Field(
        "stop", description="what happens after bad rows: stop listing them, or set them aside and go on"
    )
    train_on_inputs: bool = Field(False, description="train on prompts and on every role too")

    field: Entry[str | None] = Field(None, description="completion: field of the text; unset means text")

    chat_template: Entry[TemplateName | None] = Field(
        None,
        description="chat template of this dataset; unset means the tokenizer's, chosen at the top level",
    )
    chat_template_jinja: Entry[str | None] = Field(None, description="text of this dataset's chat template")
    chat_template_kwargs: dict[str, Any] = Field({}, description="variables given to the chat template")
    default_system_message: str | None = Field(
        None, description="system message of conversations that have none of their own"
    )
    eot_tokens: list[str] | None = Field(
        None, description="tokens that end a turn; unset means the tokenizer's EOS token"
    )
    field_messages: Entry[str] = Field("messages", description="field of a conversation's messages")
    field_system: Entry[str] = Field(
        "system", description="field whose text is the first message when that is no system message"
    )
    field_tools: Entry[str] = Field("tools", description="field of the tools that the template describes")
    message_field_role: Entry[str | None] = Field(None, description="a message's field of its role")
    message_field_content: Entry[str | None] = Field(None, description="a message's field of its content")
    message_property_mappings: Entry[dict[str, str]] = Field(
        {}, description="template's name of a message's property -> the data's name of it"
    )
    message_field_training: Entry[str | None] = Field(
        None, description="a message's field that says whether it is trained on"
    )
    message_field_training_detail: Entry[str | None] = Field(
        None, description="a message's field with character ranges (begin_offset, end_offset, train)"
    )
    roles: Entry[dict[str, list[str]] | None] = Field(
        None, description="role -> names that the data uses for it; unset knows the common ones"
    )
    roles_to_train: Entry[list[str]] = Field(["assistant"], description="roles whose messages are trained on")
    train_on_eos: Entry[EndRule] = Field(
        "turn",
        description="EOS trained on: at the end of every turn, of trained turns, the last such, or none",
    )
    train_on_eot: Entry[EndRule | None] = Field(
        None, description="the same for eot_tokens; unset means as train_on_eos"
    )
    drop_system_message: Entry[bool] = Field(False, description="leave out a conversation's system message")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.type, str) and self.type not in FORMATS:
            raise ConflictError(
                f"type: {self.type!r} is not supported; choose one of {', '.join(FORMATS)}, "
                "or give a mapping of fields and format strings",
                "type",
            )
        self._check_belonging("chat_template", CHAT_KEYS)
        self._check_belonging("completion", COMPLETION_KEYS)
        problem = check_template_keys(self.chat_template, self.chat_template_jinja)
        if problem:
            raise ConflictError(problem, "chat_template", "chat_template_jinja")
        for prop, key in (("role", "message_field_role"), ("content", "message_field_content")):
            named, mapped = getattr(self, key), self.message_property_mappings.get(prop)
            if named is not None and mapped not in (None, named):
                raise ConflictError(
                    f"{key}: {named} and message_property_mappings: {prop}: {mapped} name two fields; keep one",
                    key,
                    "message_property_mappings",
                )
        return self

    def _check_belonging(self, owner: str, keys: tuple[str, ...]) -> None:
        if self.type == owner:
            return
        for key in keys:
            if key in self.model_fields_set:
                given = self.type if isinstance(self.type, str) else "a mapping"
                raise ConflictError(
                    f"{key} is only used with type: {owner}, not with type: {given}", key, "type"
                )
