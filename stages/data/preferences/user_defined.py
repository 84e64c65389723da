"""`type:` as a mapping: field names and Python format strings instead of a format's name."""

from tunemill.stages.data.conversations.example import RowValue, text_field
from tunemill.stages.data.preferences.config import FormatStrings, PreferencesConfig
from tunemill.stages.data.preferences.records import (
    Kit,
    Pair,
    Rated,
    Reader,
    label_field,
    ready_text,
    said_in,
)


def pair(config: PreferencesConfig, _kit: Kit) -> Reader:
    """A prompt and two answers, put together by the config's own format strings."""
    formats = format_strings(config)

    def read(row: RowValue) -> Pair:
        chosen = text_field(row, formats.field_chosen, required=True)
        rejected = text_field(row, formats.field_rejected, required=True)
        better = ready_text("chosen", formats.chosen_format.format(chosen=chosen))
        worse = ready_text("rejected", formats.rejected_format.format(rejected=rejected))
        said = said_in(better, chosen, ends=False), said_in(worse, rejected, ends=False)
        return Pair(prompt_of(formats, row), better, worse, said)

    return read


def rated(config: PreferencesConfig, _kit: Kit) -> Reader:
    """A prompt and a judged answer, put together by the config's own format strings."""
    formats = format_strings(config)

    def read(row: RowValue) -> Rated:
        completion = text_field(row, formats.field_completion, required=True)
        text = ready_text("completion", formats.completion_format.format(completion=completion))
        label = label_field(row, formats.field_label)
        return Rated(prompt_of(formats, row), text, label, said_in(text, completion, ends=False))

    return read


def format_strings(config: PreferencesConfig) -> FormatStrings:
    """The mapping; `user_defined.default` by name is one with nothing in it."""
    return config.type if isinstance(config.type, FormatStrings) else FormatStrings()


def prompt_of(formats: FormatStrings, row: RowValue) -> str:
    """The prompt of a row; a row without a system text has an empty one."""
    system = text_field(row, formats.field_system, required=False)
    prompt = text_field(row, formats.field_prompt, required=True)
    return formats.prompt_format.format(system=system, prompt=prompt)
