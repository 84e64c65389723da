"""The keys of a reference that follows the model which is trained."""

from typing import Annotated

from pydantic import Field, PositiveInt

from tunemill.stages.declaration import YamlMark
from tunemill.stages.training.keys.padding import PaddedKeys

# Where the keys stand that the reference is synchronised by.
SYNC, MIXUP, EVERY = "trl.sync_ref_model", "trl.ref_model_mixup_alpha", "trl.ref_model_sync_steps"


class FollowedKeys(PaddedKeys):
    """Whether the reference follows, and how."""

    sync_ref_model: Annotated[bool, YamlMark(SYNC)] = Field(
        False, description="let a copy of the model, the reference, follow the one that is trained (TR-DPO)"
    )
    ref_model_mixup_alpha: Annotated[float, YamlMark(MIXUP)] = Field(
        0.9, gt=0, le=1, description="share of the trained model in the reference that is synchronised"
    )
    ref_model_sync_steps: Annotated[PositiveInt, YamlMark(EVERY)] = Field(
        64, description="steps between two times that the reference is synchronised"
    )
