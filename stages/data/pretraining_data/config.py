"""What the pretraining_data stage reads: the entry of `pretraining_dataset:`, and the top-level keys beside it."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from tunemill.stages.data.engines.keys import EngineKeys
from tunemill.stages.data.rows.limits import PACKING_KEYS
from tunemill.stages.data.sources.keys import SourceKeys
from tunemill.stages.declaration import ConflictError, Entry, Idle, Runtime

BUFFER_ROWS = 10_000
# Keys of datasets that are prepared as a whole, and why a stream cannot honour them.
WHOLE_DATASET_KEYS = {
    "val_set_size": "hold rows out of a stream: it has no known end. Remove it",
    "dataset_exact_deduplication": "find duplicates in a stream without keeping all of it. Remove it",
    "excess_length_strategy": "treat long texts of pretraining_dataset: they are cut into sequences. Remove it",
    "shards": "cut a stream into shards: it is read from the start. Use skip, or remove it",
    "shards_idx": "cut a stream into shards: it is read from the start. Use skip, or remove it",
}


class PretrainingDataConfig(SourceKeys, EngineKeys):
    """Where texts come from, how many are needed, and how they are put into sequences."""

    entry_lists: ClassVar[tuple[str, ...]] = ("pretraining_dataset",)

    type: Entry[Literal["pretrain", "completion"]] = Field(
        "pretrain", description="plain texts, all of them trained on; both names mean the same"
    )
    text_column: Entry[str | None] = Field(None, description="field of the text; unset means text")
    field: Entry[str | None] = Field(None, description="another name of text_column")
    skip: Entry[NonNegativeInt] = Field(0, description="rows left out at the start")

    train_on_inputs: Runtime[bool] = Field(
        False, description="a text has no prompt, so it asks for nothing: every token is trained on"
    )
    sequence_len: PositiveInt = Field(512, description="length of a sequence, in tokens")
    max_steps: PositiveInt = Field(description="optimizer steps: the source is read as far as they go")
    micro_batch_size: PositiveInt = Field(1, description="sequences per forward pass")
    gradient_accumulation_steps: PositiveInt = Field(1, description="forward passes per optimizer step")

    sample_packing: bool = Field(False, description="several texts per sequence")
    pretrain_multipack_attn: bool = Field(
        True,
        description="sample_packing: keep the texts of a sequence apart; false: each sees those before it",
    )
    pretraining_sample_concatenation: bool = Field(
        False, description="texts one behind the other, cut every sequence_len tokens; unset: each by itself"
    )
    sample_packing_bin_size: PositiveInt | None = Field(
        None, description="texts in a sequence at most; unset: as many as fit"
    )
    sample_packing_group_size: PositiveInt | None = Field(
        None, description="texts packed at a time; unset: those of a buffer"
    )
    sample_packing_sequentially: bool = Field(
        False, description="pack neighbouring texts, in their order: fewer fit into a sequence"
    )
    streaming_multipack_buffer_size: PositiveInt | None = Field(
        None, description=f"texts that are shuffled and packed together; unset: {BUFFER_ROWS}"
    )
    pretrain_multipack_buffer_size: PositiveInt | None = Field(
        None, description="older name of streaming_multipack_buffer_size"
    )
    min_sample_len: NonNegativeInt = Field(2, description="shortest text kept, in tokens")
    shuffle_merged_datasets: bool = Field(True, description="shuffle the texts of each buffer")
    curriculum_sampling: bool = Field(False, description="keep the order of the source")
    seed: NonNegativeInt = Field(42, description="order of texts and sequences")

    val_set_size: NonNegativeFloat = Field(0.0, description="rows to hold out: not possible with a stream")
    dataset_exact_deduplication: bool = Field(
        False, description="drop duplicates: not possible with a stream"
    )
    excess_length_strategy: str | None = Field(
        None, description="what to do with long texts: they are cut into sequences"
    )
    streaming: Runtime[bool] = Field(True, description="read lazily: rows are the same either way")

    @property
    def text_field(self) -> str:
        """The field of a row that holds its text."""
        return self.text_column or self.field or "text"

    @property
    def buffer_rows(self) -> int:
        """Texts that are shuffled and packed together."""
        return self.streaming_multipack_buffer_size or self.pretrain_multipack_buffer_size or BUFFER_ROWS

    @property
    def sequences(self) -> int:
        """Sequences that max_steps train on."""
        return self.max_steps * self.micro_batch_size * self.gradient_accumulation_steps

    @property
    def shuffles(self) -> bool:
        return self.shuffle_merged_datasets and not self.curriculum_sampling

    def idle(self) -> Iterator[Idle]:
        """What happens anyway, and how to pack what is not packed."""
        yield from super().idle()
        if "streaming" in self.model_fields_set:
            yield Idle("streaming", "pretraining_dataset is always read lazily, as far as max_steps needs")
        if self.train_on_inputs:
            yield Idle("train_on_inputs", "a text has no prompt: every token is trained on")
        if not self.sample_packing:
            for key in (*PACKING_KEYS, "pretrain_multipack_attn"):
                if self.is_set(key):
                    yield Idle(key, "sample_packing is off, so nothing reads it")

    def semantic(self) -> dict[str, Any]:
        """As for a dataset, which reads the seed with shards only; here it always counts."""
        seed = {} if self.seed == type(self).model_fields["seed"].default else {"seed": self.seed}
        return {**super().semantic(), **seed}

    @model_validator(mode="after")
    def _check_pretraining(self) -> Self:
        for key, reason in WHOLE_DATASET_KEYS.items():
            if getattr(self, key):
                raise ConflictError(f"{key} cannot {reason}", key)
        for key, other in (
            ("text_column", "field"),
            ("streaming_multipack_buffer_size", "pretrain_multipack_buffer_size"),
        ):
            one, two = getattr(self, key), getattr(self, other)
            if one is not None and two is not None and one != two:
                raise ConflictError(f"{key}: {one} and {other}: {two} mean the same; keep one", key, other)
        if (
            self.curriculum_sampling
            and self.shuffle_merged_datasets
            and self._given("shuffle_merged_datasets")
        ):
            raise ConflictError(
                "curriculum_sampling: true keeps the order, and shuffle_merged_datasets: true shuffles; keep one",
                "curriculum_sampling",
                "shuffle_merged_datasets",
            )
        if self.min_sample_len > self.sequence_len:
            raise ConflictError(
                f"min_sample_len: {self.min_sample_len} is more than sequence_len: {self.sequence_len}, so no text "
                "would be left",
                "min_sample_len",
                "sequence_len",
            )
        self._check_packing()
        return self

    def _check_packing(self) -> None:
        if self.sample_packing and self.pretraining_sample_concatenation:
            raise ConflictError(
                "sample_packing fits whole texts into sequences, pretraining_sample_concatenation cuts texts to fill "
                "them; choose one",
                "sample_packing",
                "pretraining_sample_concatenation",
            )

    def _given(self, key: str) -> bool:
        return key in self.model_fields_set
