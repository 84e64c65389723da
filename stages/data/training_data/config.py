"""What the training_data stage reads."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from tunemill.stages.data.rows.limits import PACKING_KEYS, Limits, Strategy
from tunemill.stages.data.rows.report_key import DESCRIPTION, DataReport
from tunemill.stages.declaration import ConflictError, GraphMark, Idle, Runtime, StageConfig


class TrainingDataConfig(StageConfig):
    """Which rows are trained on, in which order, and how they are put into sequences."""

    datasets: Runtime[list[Any]] = Field(
        [], description="the datasets: their names stand in messages and tables, and nowhere else"
    )
    sequence_len: PositiveInt = Field(512, description="longest row kept and length of a pack, in tokens")
    excess_length_strategy: Strategy = Field(
        "drop",
        description="what happens to rows longer than sequence_len; truncate takes off their end, with EOS",
    )
    min_sample_len: NonNegativeInt = Field(2, description="shortest row kept, in tokens")
    dataset_exact_deduplication: bool = Field(
        False, description="keep one of several rows with the same tokens and labels, whatever their dataset"
    )
    dataset_shard_num: PositiveInt | None = Field(
        None, description="cut the merged rows into this many parts and train on one"
    )
    dataset_shard_idx: NonNegativeInt | None = Field(None, description="the part to train on, from 0")
    shuffle_merged_datasets: bool = Field(True, description="shuffle the rows of all datasets together")
    shuffle_before_merging_datasets: bool = Field(
        False, description="shuffle each of several datasets before they are put one behind the other"
    )
    val_set_size: NonNegativeFloat = Field(
        0.0, description="rows held out for evaluation: a fraction below 1, or a number of rows above 1"
    )
    seed: NonNegativeInt = Field(42, description="order of rows, of packs and of the rows in a pack")
    curriculum_sampling: bool = Field(False, description="keep the rows in the order of the data")

    data_report: DataReport = Field("cheap", description=DESCRIPTION)
    keeps_sources: Annotated[bool, GraphMark()] = Field(
        False,
        description="whether it is said of each row where it comes from: what lies beside it is read too",
    )

    sample_packing: bool = Field(False, description="several rows per sequence, kept apart by position ids")
    sample_packing_bin_size: PositiveInt | None = Field(
        None, description="rows in a sequence at most; unset: as many as fit"
    )
    sample_packing_group_size: PositiveInt | None = Field(
        None, description="rows packed at a time, none of them with rows of other groups; unset: all at once"
    )
    sample_packing_sequentially: bool = Field(
        False, description="pack neighbouring rows, in their order: fewer fit into a sequence"
    )
    sample_packing_eff_est: Runtime[float | None] = Field(
        None, description="estimated efficiency of packing: not needed, the packs are counted"
    )
    sample_packing_mp_start_method: Runtime[Literal["fork", "spawn", "forkserver"] | None] = Field(
        None, description="how Axolotl starts processes that pack: here packing is done in one, in no time"
    )
    skip_prepare_dataset: bool = Field(
        False, description="hand rows to training as they are, which images need: not supported"
    )
    streaming: Runtime[bool] = Field(
        False, description="read rows while training: they are prepared once, and are the same either way"
    )
    streaming_multipack_buffer_size: Runtime[PositiveInt | None] = Field(
        None, description="rows that a stream shuffles and packs at a time: here all are, so nothing reads it"
    )
    pretrain_multipack_buffer_size: Runtime[PositiveInt | None] = Field(
        None, description="older name of streaming_multipack_buffer_size: nothing reads it either"
    )

    def idle(self) -> Iterator[Idle]:
        """How to pack what is not packed, and how to stream what is prepared once."""
        yield from super().idle()
        if self.streaming:
            yield Idle(
                "streaming",
                "rows are prepared once, on disk, and read from there; they are counted, so max_steps may be left out",
            )
        for key in ("streaming_multipack_buffer_size", "pretrain_multipack_buffer_size"):
            if self.is_set(key):
                yield Idle(key, "all rows are shuffled and packed together, and not those of a buffer")
        if not self.sample_packing:
            for key in PACKING_KEYS:
                if self.is_set(key):
                    yield Idle(key, "sample_packing is off, so nothing reads it")

    @property
    def limits(self) -> Limits:
        """How long rows may be."""
        return Limits(self.sequence_len, "sequence_len", self.min_sample_len, self.excess_length_strategy)

    @model_validator(mode="after")
    def _check(self) -> Self:
        size = self.val_set_size
        if size == 1 or (size > 1 and size != int(size)):
            raise ConflictError(
                f"val_set_size: {size:g} is neither a fraction below 1 nor a whole number of rows above 1",
                "val_set_size",
            )
        if self.min_sample_len > self.sequence_len:
            raise ConflictError(
                f"min_sample_len: {self.min_sample_len} is more than sequence_len: {self.sequence_len}, "
                "so no row would be left",
                "min_sample_len",
                "sequence_len",
            )
        self._check_order()
        self._check_shard()
        self._check_preparation()
        return self

    def _check_order(self) -> None:
        if not self.curriculum_sampling:
            return
        for key in ("shuffle_merged_datasets", "shuffle_before_merging_datasets"):
            if key in self.model_fields_set and getattr(self, key):
                raise ConflictError(
                    f"curriculum_sampling: true keeps the rows in order, and {key}: true shuffles them; keep one",
                    "curriculum_sampling",
                    key,
                )

    def _check_shard(self) -> None:
        count, index = self.dataset_shard_num, self.dataset_shard_idx
        if (count is None) != (index is None):
            raise ConflictError(
                "dataset_shard_num (how many parts) and dataset_shard_idx (which of them, from 0) need each other",
                "dataset_shard_num",
                "dataset_shard_idx",
            )
        if count is not None and index is not None and index >= count:
            raise ConflictError(
                f"dataset_shard_idx: {index} is not one of dataset_shard_num: {count} parts, which are counted "
                "from 0",
                "dataset_shard_idx",
                "dataset_shard_num",
            )

    def _check_preparation(self) -> None:
        if self.skip_prepare_dataset:
            raise ConflictError(
                "skip_prepare_dataset: true is not supported: it hands rows to training untokenized, for images, or "
                "tokenized, neither packed nor cut; here they are prepared once, in a node of their own. Remove it",
                "skip_prepare_dataset",
            )
