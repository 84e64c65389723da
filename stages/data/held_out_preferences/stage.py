"""The held_out_preferences stage: what was held out of preference data, by itself."""

from tunemill.stages.artifacts import PreferenceData
from tunemill.stages.declaration import Input, Stage, StageConfig

HELD_OUT_PREFERENCES = Stage(
    name="held_out_preferences",
    version=1,
    config=StageConfig,
    inputs={"training_data": Input(PreferenceData)},
    output=PreferenceData,
    body="tunemill.stages.data.held_out_preferences.body:held_out_preferences",
    kinds=("arrow",),
    description="The preference rows that val_set_size held out.",
    prepares_data=True,
)
