"""The keys that say how rows of tokens share sequences and batches, and how these are padded."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from tunemill.stages.declaration import ConflictError, Idle, Runtime, StageConfig


class SequenceKeys(StageConfig):
    """Packing, flattening and padding."""

    sequence_len: PositiveInt = Field(512, description="tokens that a sequence is padded to")
    sample_packing: bool = Field(False, description="several rows per sequence, kept apart by position ids")
    multipack_real_batches: bool | None = Field(
        None,
        description="sample_packing: sequences of a micro batch as rows of a batch (true) or one behind the other "
        "(false); unset: one behind the other with flash attention only",
    )
    eval_sample_packing: Runtime[bool | None] = Field(
        None, description="several held-out rows per sequence, unset no: evaluations leave the weights alone"
    )
    batch_flattening: Literal["auto"] | bool = Field(
        False,
        description="rows of a micro batch one behind the other, kept apart by position ids, in place of padding; "
        "auto: with flash attention",
    )
    pad_to_sequence_len: bool | None = Field(
        None, description="pad every sequence to sequence_len; unset: with sample_packing only"
    )
    pad_to_multiple_of: PositiveInt | None = Field(
        None,
        description="pad a micro batch to a multiple of this many tokens; not read when padded to sequence_len",
    )
    group_by_length: bool = Field(False, description="put sequences of like length into one step")

    @property
    def pads_to_sequence_len(self) -> bool:
        """Whether every sequence is padded to `sequence_len` tokens."""
        return self.sample_packing if self.pad_to_sequence_len is None else self.pad_to_sequence_len

    @model_validator(mode="after")
    def _check_sequences(self) -> Self:
        if self.group_by_length and self.sample_packing:
            raise ConflictError(
                "group_by_length sorts rows by length; with sample_packing every sequence is full. Choose one",
                "group_by_length",
                "sample_packing",
            )
        if self.batch_flattening is True:
            for key in ("sample_packing", "pad_to_sequence_len"):
                if getattr(self, key):
                    raise ConflictError(
                        f"batch_flattening puts rows one behind the other without padding, which {key}: true does not "
                        f"allow. Choose one",
                        "batch_flattening",
                        key,
                    )
        if self.pad_to_multiple_of is not None and self.pads_to_sequence_len:
            raise ConflictError(
                "pad_to_multiple_of: every sequence is padded to sequence_len. Remove it, or set pad_to_sequence_len: "
                "false",
                "pad_to_multiple_of",
                "pad_to_sequence_len",
                "sample_packing",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """How to batch packs where nothing is packed."""
        yield from super().idle()
        if self.is_set("multipack_real_batches") and not self.sample_packing:
            yield Idle("multipack_real_batches", "sample_packing is off, so nothing reads it")
