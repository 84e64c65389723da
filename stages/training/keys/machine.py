"""The keys that say how the model is computed: beside precision, compilation."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from tunemill.stages.declaration import ConflictError, Idle
from tunemill.stages.training.keys.precision import PrecisionKeys

# What torch.compile calls its modes.
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


class MachineKeys(PrecisionKeys):
    """How numbers are computed."""

    torch_compile: bool | Literal["auto"] = Field(False, description="compile the model; auto is true")

    torch_compile_backend: str | None = Field(None, description="compiler's back end; unset: inductor")
    torch_compile_mode: CompileMode | None = Field(None, description="how hard the compiler tries")
    torch_compile_options: dict[str, bool | int | float | str] | None = Field(
        None, description="options of the compiler's back end; not beside torch_compile_mode"
    )

    @model_validator(mode="after")
    def _check_compiler(self) -> Self:
        if self.torch_compile_mode and self.torch_compile_options:
            raise ConflictError(
                "torch_compile_mode and torch_compile_options exclude each other: a mode is a set of options. Keep one",
                "torch_compile_mode",
                "torch_compile_options",
            )
        return self

    def idle(self) -> Iterator[Idle]:
        """How to compile what is not compiled."""
        yield from super().idle()
        compiler = {
            "torch_compile_backend": self.torch_compile_backend,
            "torch_compile_mode": self.torch_compile_mode,
            "torch_compile_options": self.torch_compile_options,
        }
        for key, value in compiler.items():
            if value and not self.torch_compile:
                yield Idle(key, "torch_compile is off")
