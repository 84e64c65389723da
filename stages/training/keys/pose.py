"""The keys of PoSE: rows of a short training that stand at the positions of a long context."""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tunemill.stages.declaration import ConflictError, Idle
from tunemill.stages.training.keys.sequences import SequenceKeys


class PoseKeys(SequenceKeys):
    """Positional skip-wise training (Zhu and others, arXiv 2309.10400). Names and defaults are Axolotl's."""

    use_pose: bool = Field(
        False, description="PoSE: positions of a row jump, so that short rows train those of a long context"
    )
    pose_max_context_len: PositiveInt = Field(
        32768, description="PoSE: the context; no position is beyond it"
    )
    pose_num_chunks: PositiveInt = Field(
        2, description="PoSE: parts of a row, of the same length; positions jump between them"
    )
    pose_split_on_token_ids: list[NonNegativeInt] | None = Field(
        None,
        min_length=1,
        description="PoSE: let positions jump before these tokens, not between equal parts",
    )

    @model_validator(mode="after")
    def _check_pose(self) -> Self:
        if not self.use_pose:
            return self
        for key in ("sample_packing", "batch_flattening"):
            if getattr(self, key):
                raise ConflictError(
                    f"use_pose: where rows share a sequence, a jump of the positions is the border of a row. Remove "
                    f"{key}",
                    "use_pose",
                    key,
                )
        if self.pose_max_context_len < self.sequence_len:
            raise ConflictError(
                f"pose_max_context_len: {self.pose_max_context_len} is less than sequence_len: {self.sequence_len}, so "
                f"rows have no room to jump. Raise it",
                "pose_max_context_len",
                "sequence_len",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """How positions jump that do not, and into how many parts a row falls that is split before tokens."""
        yield from super().idle()
        for key in ("pose_max_context_len", "pose_num_chunks", "pose_split_on_token_ids"):
            if self.is_set(key) and not self.use_pose:
                yield Idle(key, "use_pose is off, so positions do not jump")
        if self.use_pose and self.is_set("pose_num_chunks") and self.pose_split_on_token_ids:
            yield Idle("pose_num_chunks", "pose_split_on_token_ids says where rows are split")
