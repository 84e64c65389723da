"""What the preferences stage reads: an entry of `datasets:`, and the top-level keys beside it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from tunemill.stages.choices import nearest
from tunemill.stages.data.conversations.chat_template import TemplateName, check_template_keys
from tunemill.stages.data.conversations.format_strings import check_format_strings
from tunemill.stages.data.conversations.keys import MISTRAL_KEY
from tunemill.stages.data.engines.keys import EngineKeys
from tunemill.stages.data.preferences.type_table import (
    ORPO_ONLY,
    TYPES,
    USER_CODE,
    Kind,
    PreferenceType,
    full_name,
)
from tunemill.stages.declaration import (
    CodeMark,
    ConflictError,
    Entry,
    GraphMark,
    Runtime,
    Settings,
    TextOrFile,
    YamlMark,
)

Method = Literal["dpo", "ipo", "simpo", "orpo", "kto"]
# Those that learn from what the model itself samples: their rows are prompts.
OnlineMethod = Literal["grpo", "gdpo", "ebft"]

# Keys that only some formats read.
FORMAT_KEYS = (
    "chat_template",
    "chat_template_jinja",
    "default_system_message",
    "drop_system_message",
    "field_chosen",
    "field_messages",
    "field_rejected",
    "field_system",
    "field_tools",
    "message_field_content",
    "message_field_role",
    "message_property_mappings",
    "roles",
)
PAIR_ONLY = ("field_chosen", "field_rejected", "chosen_format", "rejected_format")
RATED_ONLY = ("field_completion", "field_label", "completion_format")


class FormatStrings(Settings):
    """`type:` as a mapping: fields, and Python format strings that put them together."""

    field_prompt: str = Field("prompt", description="field of the prompt")
    field_system: str = Field("system", description="field of the system text; a row may lack it")
    field_chosen: str = Field("chosen", description="field of the better answer")
    field_rejected: str = Field("rejected", description="field of the worse answer")
    field_completion: str = Field("completion", description="rl: kto: field of the answer")
    field_label: str = Field("label", description="rl: kto: field that says whether the answer is good")
    prompt_format: str = Field(
        "{prompt}",
        description="format of the prompt; knows {prompt} and {system}, empty where a row has none",
    )
    chosen_format: str = Field("{chosen}", description="format of the better answer; knows {chosen}")
    rejected_format: str = Field("{rejected}", description="format of the worse answer; knows {rejected}")
    completion_format: str = Field(
        "{completion}", description="rl: kto: format of the answer; knows {completion}"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_format_strings(
            {
                "prompt_format": (self.prompt_format, ("prompt", "system")),
                "chosen_format": (self.chosen_format, ("chosen",)),
                "rejected_format": (self.rejected_format, ("rejected",)),
                "completion_format": (self.completion_format, ("completion",)),
            }
        )
        return self


class PreferencesConfig(EngineKeys):
    """How the rows of one dataset become pairs of answers, judged answers or pairs of whole conversations."""

    path: Runtime[Entry[str | None]] = Field(
        None, description="where the rows came from: named in error messages and nowhere else"
    )
    type: Entry[str | FormatStrings | None] = Field(
        None,
        description="format of the rows, a mapping of fields and format strings, or `my_module.function`; unset "
        "takes `prompt`, `chosen` and `rejected` (or `completion` and `label`) as they are",
    )
    type_code: Annotated[Entry[list[str] | None], CodeMark(of="type")] = Field(
        None, description="the files of the function that `type` names"
    )
    rl: Method | None = Field(None, description="how preferences are learnt: decides which formats there are")
    reward_model: bool = Field(False, description="prepare rows for a reward model")
    today: Annotated[Runtime[str | None], GraphMark()] = Field(
        None,
        description="the day that chat templates see, where chat_template_kwargs names none: recorded with the rows, "
        "and no part of the key, for then every new day would compute everything again",
    )
    dataset_num_proc: Runtime[PositiveInt | None] = Field(
        None, description="threads that tokenize, unset one per core: changes the time, not the rows"
    )
    bad_rows: Annotated[Literal["stop", "skip"], YamlMark("pipeline.bad_rows")] = Field(
        "stop", description="what happens after bad rows: stop listing them, or set them aside and go on"
    )
    chat_template: Entry[TemplateName | None] = Field(
        None,
        description="chat template of this dataset; unset means the tokenizer's, chosen at the top level",
    )
    chat_template_jinja: Entry[TextOrFile[str | None]] = Field(
        None, description="text of this dataset's chat template, or the path of a file with it"
    )
    template_name: Runtime[Annotated[str | None, YamlMark("chat_template")]] = Field(
        None, description="the tokenizer's chat template: named in error messages and nowhere else"
    )
    tokenizer_use_mistral_common: Runtime[bool | None] = Field(
        None, description="refused where it is true: mistral-common renders whole conversations only"
    )
    chat_template_kwargs: dict[str, Any] = Field({}, description="variables given to the chat template")
    default_system_message: str | None = Field(
        None, description="system message of prompts that have none of their own"
    )
    field_messages: Entry[str] = Field("messages", description="field of the conversation to be answered")
    field_chosen: Entry[str] = Field("chosen", description="field of the better answer")
    field_rejected: Entry[str] = Field("rejected", description="field of the worse answer")
    field_system: Entry[str | None] = Field(
        None,
        description="field of a row's system text; unset means system, except for chat_template.default and "
        "chat_template.argilla_chat, where the messages hold it",
    )
    field_tools: Entry[str] = Field("tools", description="field of the tools that the template describes")
    message_field_role: Entry[str | None] = Field(None, description="a message's field of its role")
    message_field_content: Entry[str | None] = Field(None, description="a message's field of its content")
    message_property_mappings: Entry[dict[str, str]] = Field(
        {}, description="template's name of a message's property -> the data's name of it"
    )
    roles: Entry[dict[str, list[str]] | None] = Field(
        None, description="role -> names that the data uses for it; unset knows the common ones"
    )
    drop_system_message: Entry[bool] = Field(False, description="leave out a conversation's system message")

    @property
    def kind(self) -> Kind:
        """What kind of rows the method learns from."""
        return "reward" if self.reward_model else "rated" if self.rl == "kto" else "pair"

    @property
    def chosen_type(self) -> PreferenceType:
        """The format that `type` names."""
        if isinstance(self.type, FormatStrings):
            return TYPES[self.kind]["user_defined.default"]
        found = TYPES[self.kind].get(full_name(self.type))
        if found is None:
            assert self.type_code, "checked"
            return USER_CODE
        return found

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_method()
        self._check_type()
        if self.tokenizer_use_mistral_common:
            raise ConflictError(
                f"{MISTRAL_KEY}: true does not go with preference data: mistral-common renders whole conversations, "
                "and a prompt and its answers are cut out of the text of a chat template. Take the key out, and use "
                "a repository that has a tokenizer.json and a chat template",
                MISTRAL_KEY,
            )
        check_template_keys(self.chat_template, self.chat_template_jinja)
        given = [
            key for key in FORMAT_KEYS if key in self.model_fields_set and key not in self.chosen_type.keys
        ]
        if given:
            raise ConflictError(f"{given[0]} is not read with type: {self._spelt_type()}", given[0], "type")
        for prop, key in (("role", "message_field_role"), ("content", "message_field_content")):
            named, mapped = getattr(self, key), self.message_property_mappings.get(prop)
            if named is not None and mapped not in (None, named):
                raise ConflictError(
                    f"{key}: {named} and message_property_mappings: {prop}: {mapped} name two fields; keep one",
                    key,
                    "message_property_mappings",
                )
        return self

    def _check_method(self) -> None:
        if (self.rl is None) == (not self.reward_model):
            raise ConflictError("set either rl or reward_model: true", "rl", "reward_model")

    def _check_type(self) -> None:
        if isinstance(self.type, FormatStrings):
            if self.kind == "reward":
                raise ConflictError(
                    "type: a reward model's rows have no format strings", "type", "reward_model"
                )
            wrong = RATED_ONLY if self.kind == "pair" else PAIR_ONLY
            given = [key for key in wrong if key in self.type.model_fields_set]
            if given:
                raise ConflictError(f"type: {given[0]} is not used with rl: {self.rl}", "type", "rl")
            return
        name = full_name(self.type)
        orpo_only = name in ORPO_ONLY and self.rl != "orpo"
        own = bool(self.type_code) and not self.reward_model
        if (name not in TYPES[self.kind] and not own) or orpo_only:
            method = "reward_model: true" if self.reward_model else f"rl: {self.rl}"
            names = sorted(n for n in TYPES[self.kind] if self.rl == "orpo" or n not in ORPO_ONLY)
            meant = nearest(name, names)
            raise ConflictError(
                f"type: {self.type} is not a format for {method}; choose one of {', '.join(names)}, "
                "or the function of a Python file beside the YAML (my_module.my_function)",
                "type",
                suggestion=meant[0] if meant else None,
            )

    def _spelt_type(self) -> str:
        if isinstance(self.type, FormatStrings):
            return "a mapping of format strings"
        return self.type or "(unset)"
