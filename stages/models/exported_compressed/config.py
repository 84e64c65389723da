"""What the `exported_compressed` stage is asked for by an entry of `pipeline.export`."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from tunemill.stages.declaration import Fault, GraphMark, StageConfig
from tunemill.stages.models.exports import CALIBRATED, Group, Scheme

INSTALL = "pip install 'tunemill[llmcompressor]'"


class ExportedCompressedConfig(StageConfig):
    """How weights are stored, and which rows are looked at for it."""

    scheme: Annotated[Scheme, GraphMark()] = Field(
        description="how weights and inputs of products are stored"
    )
    group_size: Annotated[Group, GraphMark()] = Field(128, description="inputs that share a scale, of w4a16")
    calibration_rows: Annotated[PositiveInt, GraphMark()] = Field(
        512, description="rows of the training data that are looked at"
    )
    seed: Annotated[NonNegativeInt, GraphMark()] = Field(0, description="which rows these are")

    @property
    def calibrated(self) -> bool:
        """Whether rows of the training data are looked at."""
        return self.scheme in CALIBRATED

    def faults(self) -> Iterator[Fault]:
        """A package that is not there."""
        yield from super().faults()
        if find_spec("llmcompressor") is None:
            yield Fault(
                "scheme",
                f"{self.scheme} is made by the package llmcompressor, which is not installed. {INSTALL} (it takes "
                f"transformers up to 5.17, so an environment of its own may be wanted)",
            )
