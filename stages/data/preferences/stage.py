"""The preferences stage: rows to pairs of answers, or to judged answers."""

from tunemill.stages.artifacts import Preferences, RawDataset, Tokenizer
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.rows.checks import OF_PREFERENCES
from tunemill.stages.declaration import Input, Stage

PREFERENCES = Stage(
    name="preferences",
    version=7,
    config=PreferencesConfig,
    inputs={"dataset": Input(RawDataset), "tokenizer": Input(Tokenizer)},
    output=Preferences,
    body="tunemill.stages.data.preferences.body:preferences",
    kinds=("huggingface", "arrow"),
    description="One dataset's rows as a prompt with a chosen and a rejected answer, or with a judged one.",
    libraries=("jinja2", "tokenizers", "transformers"),
    prepares_data=True,
    shows="tunemill.stages.data.preferences.shown_body:preference_rows",
    traces="tunemill.stages.data.rows.trace_body:trace_to_dataset",
    checks=OF_PREFERENCES,
)
