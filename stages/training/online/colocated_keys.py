"""The keys of a vLLM that shares the device that trains: which share it takes, and how."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from tunemill.stages.declaration import Runtime, StageConfig, YamlMark

COLOCATE = "colocate"
# Of the device's memory, where nothing says more: TRL's default. Beside a training vLLM's own, nine tenths, is no room.
SHARE = 0.3
MODE = "trl.vllm_mode"


class ColocatedKeys(StageConfig):
    """Where a server that is started runs, and how much of the device it takes."""

    vllm_mode: Annotated[Runtime[Literal["server", "colocate"]], YamlMark(MODE)] = Field(
        "server",
        description="colocate: a server of its own is started in any case, which shares the device that trains; "
        "server: one is named, or is started: how it is reached changes no result",
    )
    vllm_gpu_memory_utilization: Annotated[
        Runtime[PositiveFloat | None], YamlMark("trl.vllm_gpu_memory_utilization")
    ] = Field(
        None,
        le=1,
        description="share of the GPU that a server that is started takes; unset: vLLM's own, with vllm_mode: colocate "
        "that of vllm.gpu_memory_utilization, or 0.3: changes its speed",
    )
    vllm_tensor_parallel_size: Annotated[
        Runtime[PositiveInt | None], YamlMark("trl.vllm_tensor_parallel_size")
    ] = Field(
        None,
        description="GPUs that share each layer in a server that is started; unset: one, with vllm_mode: colocate as "
        "vllm.tensor_parallel_size says: who computes what changes rounding alone",
    )
    vllm_share_of_block: Annotated[Runtime[PositiveFloat | None], YamlMark("vllm.gpu_memory_utilization")] = (
        Field(
            None,
            le=1,
            description="with vllm_mode: colocate, where trl.vllm_gpu_memory_utilization is unset: changes its speed",
        )
    )
    vllm_gpus_of_block: Annotated[Runtime[PositiveInt | None], YamlMark("vllm.tensor_parallel_size")] = Field(
        None,
        description="with vllm_mode: colocate, where trl.vllm_tensor_parallel_size is unset: who computes what changes "
        "rounding alone",
    )
    vllm_enable_sleep_mode: Annotated[Runtime[bool], YamlMark("trl.vllm_enable_sleep_mode")] = Field(
        False,
        description="asks for nothing: a server beside the training keeps its share of the device while steps are "
        "taken; it would change memory alone",
    )

    @property
    def is_colocated(self) -> bool:
        """Whether a server shares the device that trains because that is asked for."""
        return self.vllm_mode == COLOCATE

    @property
    def vllm_share(self) -> float | None:
        """Share of the device's memory that a server that is started takes; None: as vLLM does by itself."""
        if self.vllm_gpu_memory_utilization is not None or not self.is_colocated:
            return self.vllm_gpu_memory_utilization
        return SHARE if self.vllm_share_of_block is None else self.vllm_share_of_block

    @property
    def vllm_gpus(self) -> int:
        """GPUs that share each layer in a server that is started."""
        of_block = self.vllm_gpus_of_block if self.is_colocated else None
        return self.vllm_tensor_parallel_size or of_block or 1
