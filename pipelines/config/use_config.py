"""The keys of what is done with a finished model: a page, a server. No stage reads them, so no result does."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tunemill.stages.declaration import Idle, Runtime, Settings, StageConfig
from tunemill.stages.models.vllm.python_key import PYTHON_OF_VLLM, VllmPython

PAGE = "of a page to talk with the model, and of no result"


class VllmSettings(Settings):
    """`vllm`: how `vllm-serve` starts vLLM; share and GPUs are those of `trl.vllm_mode: colocate` too."""

    host: str | None = Field(None, description="address that it listens on; unset: 127.0.0.1")
    port: NonNegativeInt | None = Field(None, le=65535, description="its port; unset: 8000")
    device: Literal["auto", "cuda"] | None = Field(
        None, description="vLLM takes the GPUs that CUDA_VISIBLE_DEVICES leaves it, so it asks for nothing"
    )
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] | None = Field(
        None, description="type of weights and activations; unset: that of the model"
    )
    tensor_parallel_size: PositiveInt | None = Field(None, description="GPUs that share each layer; unset: 1")
    data_parallel_size: PositiveInt | None = Field(None, description="copies of the model; unset: 1")
    gpu_memory_utilization: PositiveFloat | None = Field(
        None, le=1, description="share of the GPU's memory that vLLM takes; unset: vLLM's own"
    )
    max_model_len: PositiveInt | None = Field(
        None, description="longest prompt and answer together, in tokens; unset: that of the model"
    )
    enable_prefix_caching: bool | None = Field(
        None, description="keep what was computed of prompts that begin alike; unset: vLLM's own"
    )
    enable_reasoning: bool | None = Field(
        None, description="tell thoughts from answers; vLLM does so where reasoning_parser is set"
    )
    reasoning_parser: str | None = Field(
        None, min_length=1, description="vLLM's name of how the model marks its thoughts"
    )
    enforce_eager: bool | None = Field(None, description="without CUDA graphs: slower, with less memory")
    serve_module: str | None = Field(
        None, description="a server that takes weights from an online training: there is none, so it is noted"
    )
    worker_extension_cls: str | None = Field(
        None, min_length=1, description="a class that vLLM's workers are extended by: module.Class"
    )

    @model_validator(mode="after")
    def _thoughts_have_a_parser(self) -> Self:
        if self.enable_reasoning and self.reasoning_parser is None:
            raise ValueError(
                "enable_reasoning: vLLM tells thoughts from answers by a parser. Add reasoning_parser, such as qwen3"
            )
        if self.enable_reasoning is False and self.reasoning_parser is not None:
            raise ValueError("enable_reasoning: false beside a reasoning_parser, which enables it. Keep one")
        return self


class UseConfig(StageConfig):
    """What is done with a finished model."""

    gradio_title: Runtime[str | None] = Field(None, description=f"title: {PAGE}")
    gradio_share: Runtime[bool | None] = Field(
        None, description=f"let Gradio's servers lead others to it: {PAGE}"
    )
    gradio_server_name: Runtime[str | None] = Field(
        None, min_length=1, description=f"address that it listens on, unset 127.0.0.1: {PAGE}"
    )
    gradio_server_port: Runtime[PositiveInt | None] = Field(
        None, le=65535, description=f"port, unset the first free one from 7860 on: {PAGE}"
    )
    gradio_max_new_tokens: Runtime[PositiveInt | None] = Field(
        None, description=f"longest answer in tokens, unset 512: {PAGE}"
    )
    gradio_temperature: Runtime[float | None] = Field(
        None,
        ge=0,
        le=100,
        description=f"0: the likeliest token each time (unset too), above: drawn: {PAGE}",
    )
    vllm_python: VllmPython = Field(None, description=PYTHON_OF_VLLM)
    vllm: Runtime[VllmSettings | None] = Field(
        None,
        description="how vllm-serve starts vLLM, and what one takes beside a training (trl.vllm_mode: colocate): it "
        "serves a model, and changes no result",
    )

    def idle(self) -> Iterator[Idle]:
        """What newer versions of vLLM decide by themselves, and what only online training would need."""
        yield from super().idle()
        if self.vllm is None:
            return
        if self.vllm.device is not None:
            yield Idle("vllm.device", "vLLM takes the GPUs that CUDA_VISIBLE_DEVICES leaves it")
        if self.vllm.enable_reasoning is not None:
            yield Idle(
                "vllm.enable_reasoning", "vLLM tells thoughts from answers where reasoning_parser is set"
            )
        if self.vllm.serve_module is not None:
            yield Idle(
                "vllm.serve_module", "vLLM's own server is started: no training here sends weights to it"
            )
