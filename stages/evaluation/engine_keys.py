"""`engine` of an evaluation: what runs the model that answers."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from tunemill.stages.choices import ChoiceError
from tunemill.stages.declaration import Settings
from tunemill.stages.evaluation.endpoint_key import EndpointUrl

TRANSFORMERS, VLLM = "transformers", "vllm"
# Keys of a server that is started here, and of one that runs already.
OF_STARTED = (
    "dtype",
    "tensor_parallel_size",
    "gpu_memory_utilization",
    "enforce_eager",
    "start_seconds",
)
OF_GIVEN = ("model", "version")
# What changes where and when the server is there, and no answer.
PLACES = ("url", "model", "version", "gpu_memory_utilization", "start_seconds")


class VllmEngine(Settings):
    """vLLM: a server that is started for the evaluation and ended with it, or one that runs already."""

    kind: Literal["vllm"] = Field("vllm", description="vllm: a server of vLLM")
    url: EndpointUrl | None = Field(
        None,
        description="a server that runs already, such as http://127.0.0.1:8000/v1; unset: one is started",
    )
    model: str | None = Field(
        None, min_length=1, description="with url: what the server calls the model; unset: it has one alone"
    )
    version: str | None = Field(
        None,
        min_length=1,
        description="with url: vLLM's version there, such as 0.32.0; unset: the server is asked for it at each plan",
    )
    dtype: Literal["auto", "float16", "bfloat16", "float32"] | None = Field(
        None, description="type of weights and activations; unset: that of the model's weights"
    )
    tensor_parallel_size: PositiveInt | None = Field(None, description="GPUs that share each layer; unset: 1")
    gpu_memory_utilization: PositiveFloat | None = Field(
        None, le=1, description="share of the GPU's memory that vLLM takes; unset: vLLM's own"
    )
    enforce_eager: bool | None = Field(
        None, description="without CUDA graphs: slower, with less memory; unset: as vLLM does, on a CPU true"
    )
    start_seconds: PositiveFloat = Field(900.0, description="how long to wait for a server that is started")

    @field_validator("url")
    @classmethod
    def _root(cls, value: str | None) -> str | None:
        return value and value.rstrip("/").removesuffix("/v1").rstrip("/")

    @model_validator(mode="after")
    def _settings_are_of_this_server(self) -> Self:
        given = self.model_fields_set
        idle = [name for name in (OF_STARTED if self.url else OF_GIVEN) if name in given]
        if idle and self.url:
            raise ValueError(
                f"{idle[0]}: a server that runs already was started with settings of its own. Take it out"
            )
        if idle:
            raise ValueError(f"{idle[0]}: is of a server that runs already. Give its url, or take it out")
        return self

    def semantic(self) -> dict[str, Any]:
        """What of the settings can change an answer."""
        kept = self.model_dump(mode="json", exclude=set(PLACES), exclude_defaults=True)
        return {"kind": VLLM, **kept, **({"given": True} if self.url else {})}


def _spelled_out(value: Any) -> Any:
    if value == VLLM:
        return {"kind": VLLM}
    if isinstance(value, str) and value != TRANSFORMERS:
        raise ChoiceError(value, (TRANSFORMERS, VLLM))
    if isinstance(value, dict) and value.get("kind") != VLLM:
        raise ValueError(
            "kind: vllm is the engine with settings. Write `engine: {kind: vllm, url: ...}`, or transformers"
        )
    return value


Engine = Annotated[Literal["transformers"] | VllmEngine, BeforeValidator(_spelled_out)]
