"""The keys that say how a row's conversation is read, and which of its messages are trained on."""

from typing import Self

from pydantic import Field, model_validator

from tunemill.stages.declaration import ConflictError, Entry, StageConfig

# What most data and most templates call the reasoning of a message.
REASONING = "reasoning_content"
# The key that lets mistral-common render conversations, and the distribution that does.
MISTRAL_KEY = "tokenizer_use_mistral_common"
MISTRAL_COMMON = "mistral-common"


class ConversationKeys(StageConfig):
    """Where a row has its messages, what their parts are called, and who is trained on."""

    train_on_inputs: bool = Field(False, description="train on prompts and on every role too")
    default_system_message: str | None = Field(
        None, description="system message of conversations that have none of their own"
    )
    field_messages: Entry[str] = Field("messages", description="field of a conversation's messages")
    field_system: Entry[str] = Field(
        "system", description="field whose text is the first message when that is no system message"
    )
    field_tools: Entry[str] = Field("tools", description="field of the tools that the template describes")
    field_thinking: Entry[str] = Field(REASONING, description="a message's field of its reasoning")
    template_thinking_key: Entry[str] = Field(
        REASONING, description="the chat template's name of a message's reasoning"
    )
    split_thinking: Entry[bool] = Field(
        False, description="take the reasoning between tags such as <think> out of assistants' contents"
    )
    message_field_role: Entry[str | None] = Field(
        None, description="a message's field of its role; message_property_mappings says the same"
    )
    message_field_content: Entry[str | None] = Field(
        None, description="a message's field of its content; message_property_mappings says the same"
    )
    field_human: Entry[str | None] = Field(None, description="no longer used: see message_property_mappings")
    field_model: Entry[str | None] = Field(None, description="no longer used: see message_property_mappings")
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
    drop_system_message: Entry[bool] = Field(False, description="leave out a conversation's system message")

    @model_validator(mode="after")
    def _check_conversation(self) -> Self:
        named = {
            "message_field_role": ("role", self.message_field_role),
            "message_field_content": ("content", self.message_field_content),
        }
        if self.field_thinking != REASONING:
            named["field_thinking"] = (self.template_thinking_key, self.field_thinking)
        for key, (prop, field) in named.items():
            mapped = self.message_property_mappings.get(prop)
            if field is not None and mapped not in (None, field):
                raise ConflictError(
                    f"{key}: {field} and message_property_mappings: {prop}: {mapped} name two fields; keep one",
                    key,
                    "message_property_mappings",
                )
        if self.template_thinking_key in ("role", "content"):
            raise ConflictError(
                f"template_thinking_key: {self.template_thinking_key} is another property of a message",
                "template_thinking_key",
            )
        for key in ("field_human", "field_model"):
            if getattr(self, key) is not None:
                raise ConflictError(
                    f"{key} is not used any more: say how the data names a message's properties in "
                    "message_property_mappings (role: ..., content: ...), and its roles in roles "
                    "(user: [...], assistant: [...])",
                    key,
                )
        return self
