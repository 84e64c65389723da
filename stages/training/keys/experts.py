"""The key that says how the experts of a mixture are computed."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from tunemill.stages.declaration import Idle, StageConfig

# Kernels of Axolotl's; transformers has none of them that trains on every machine.
FOREIGN = ("scattermoe", "sonicmoe")
ExpertsName = Literal["eager", "batched_mm", "grouped_mm"]


class ExpertKeys(StageConfig):
    """How experts are computed: faster or slower, the same but for rounding."""

    experts_implementation: Literal["eager", "batched_mm", "grouped_mm", "scattermoe", "sonicmoe"] | None = (
        Field(
            None, description="how transformers computes a mixture's experts; unset: grouped_mm where it can"
        )
    )

    @property
    def experts(self) -> ExpertsName | None:
        """What transformers is asked for; None leaves it to the model."""
        given = self.experts_implementation
        return None if given == "scattermoe" or given == "sonicmoe" else given

    def idle(self) -> Iterator[Idle]:
        """Kernels of Axolotl's."""
        yield from super().idle()
        if self.experts_implementation in FOREIGN:
            yield Idle(
                "experts_implementation",
                f"{self.experts_implementation} is a kernel of Axolotl's; transformers computes the experts in its own "
                f"way, which is the same but for rounding",
            )
