"""`type:` as a mapping: field names and Python format strings instead of a format's name."""

from tunemill.stages.data.conversations.example import Example, Format, Kit, RowValue, Segment, text_field
from tunemill.stages.data.tokenized.config import TokenizedConfig, UserDefinedType


def user_defined(config: TokenizedConfig, _kit: Kit) -> Format:
    """Rows put together by the config's own format strings."""
    mapping = config.type
    assert isinstance(mapping, UserDefinedType)

    def read(row: RowValue) -> Example:
        instruction = text_field(row, mapping.field_instruction, required=True)
        output = text_field(row, mapping.field_output, required=True)
        context = text_field(row, mapping.field_input, required=False)
        prompt = system_part(mapping, row) + turn_part(mapping, instruction, context)
        return (
            Segment("prompt", prompt, config.train_on_inputs, bos=True),
            Segment("response", output, trained=True, eos=1),
        )

    return Format(read)


def system_part(mapping: UserDefinedType, row: RowValue) -> str:
    """The row's own system text, even an empty one, else system_prompt; nothing when that is empty."""
    field = mapping.field_system
    system = text_field(row, field, required=False) if field in row else mapping.system_prompt
    return mapping.system_format.format(system=system) if system else ""


def turn_part(mapping: UserDefinedType, instruction: str, context: str) -> str:
    """The prompt of a row, with or without further input."""
    wording = mapping.format if context else mapping.no_input_format
    return wording.format(instruction=instruction, input=context)
