"""`type: my_module.my_function`: rows made by a user's own function."""

from tunemill.stages.data.conversations.example import BadRowError, RowValue, text_field
from tunemill.stages.data.conversations.user_config import UserConfig
from tunemill.stages.data.conversations.user_functions import map_function, row_of
from tunemill.stages.data.conversations.user_modules import UserFailures, load_function, parameters
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.records import (
    Kit,
    Pair,
    Rated,
    Reader,
    Record,
    label_field,
    ready_text,
)
from tunemill.stages.errors import SettingError


def transformed(config: PreferencesConfig, kit: Kit) -> Reader:
    """Rows that the function's map function makes: `prompt` with `chosen` and `rejected`, or `completion`, `label`.

    What it does not return stays as it was, without the columns that `remove_columns` names. Raises SettingError
    where the code does not load or does not make what it must.
    """
    name, files = str(config.type), config.type_code
    assert files is not None
    function = load_function("type", name, files)
    with UserFailures(f"type: {name}", files, SettingError):
        made = function(UserConfig("preferences", config))
    mapping = map_function(f"type: {name}", made)
    extra = (
        {"tokenizer": kit.tokenizer.with_transformers()}
        if "tokenizer" in parameters(mapping.function)
        else {}
    )

    def read(row: RowValue) -> Record:
        kept = {} if mapping.removed is None else {k: v for k, v in row.items() if k not in mapping.removed}
        with UserFailures(f"type: {name}", files, BadRowError):
            returned = mapping.function(dict(row), **extra)
        made_row = kept | row_of(f"type: {name}", returned)
        try:
            keys = ("prompt", "chosen", "rejected") if config.kind == "pair" else ("prompt", "completion")
            texts = [ready_text(key, text_field(made_row, key, required=True)) for key in keys]
            if config.kind == "pair":
                return Pair(texts[0], texts[1], texts[2])
            return Rated(texts[0], texts[1], label_field(made_row, "label"))
        except BadRowError as error:
            raise BadRowError(f"what type: {name} made of it: {error}") from None

    return read
