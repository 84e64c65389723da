"""What the `merged` stage reads from the YAML. The adapter itself says how it is to be folded in."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tunemill.stages.declaration import GraphMark, Idle, StageConfig


class MergedConfig(StageConfig):
    """What the adapter is folded into, where the base that it was trained on is quantized."""

    merge_method: Literal["memory_efficient", "legacy"] = Field(
        "memory_efficient",
        description="memory_efficient: fold into the base as the quantized weights say it, which is what was trained; "
        "legacy: into the base before it was quantized",
    )
    quantize_moe_experts: bool = Field(False, description="the experts of the quantized base are rounded too")
    has_quantized_base: Annotated[bool, GraphMark()] = Field(
        False, description="whether the adapter was trained on a quantized base"
    )

    def idle(self) -> Iterator[Idle]:
        """A choice between two bases where there is one."""
        yield from super().idle()
        if self.is_set("merge_method") and not self.has_quantized_base:
            yield Idle("merge_method", "the base is not quantized, so both methods are the same")
