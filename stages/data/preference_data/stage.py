"""The preference_data stage: the preference rows that the trainer reads, in order."""

from tunemill.stages.artifacts import PreferenceData, Preferences
from tunemill.stages.data.preference_data.config import PreferenceDataConfig
from tunemill.stages.data.rows.checks import OF_PREFERENCE_TRAINING
from tunemill.stages.declaration import Input, Stage

PREFERENCE_DATA = Stage(
    name="preference_data",
    version=3,
    config=PreferenceDataConfig,
    inputs={"tokenized": Input(Preferences, many=True)},
    output=PreferenceData,
    body="tunemill.stages.data.preference_data.body:preference_data",
    kinds=("arrow",),
    description="All preference rows fitted to the sequence length, merged, shuffled and split.",
    libraries=("numpy",),
    prepares_data=True,
    traces="tunemill.stages.data.preference_data.trace_body:trace",
    export="tunemill.stages.data.preference_data.export_body:export_batch",
    checks=OF_PREFERENCE_TRAINING,
)
