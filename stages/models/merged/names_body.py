"""What the tensors of a base are called, in its files and in the model, and how they lie there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.pytorch_utils import Conv1D

from tunemill.stages.models.dequantize_body import StoredBase
from tunemill.stages.models.named_weights_body import NamedWeights
from tunemill.stages.models.skeleton_body import skeleton_of_folder


@dataclass(frozen=True)
class Names:
    """`turned`: weights of modules that hold them as (in, out). `embedding` and `head`: the weights of the embeddings
    and of the output head, "" where there is none. `skeleton`: the model without weights. Names are those in the
    model.
    """

    weights: NamedWeights
    turned: frozenset[str]
    skeleton: Any
    embedding: str
    head: str

    @property
    def tied(self) -> bool:
        """Whether the output head is stored as the embeddings."""
        stored = self.weights.group_of
        return bool(self.head) and self.head not in stored and self.embedding in stored


def names_of(folder: Path) -> Names:
    """The names of a model folder."""
    model = skeleton_of_folder(folder)
    modules = {id(module): name for name, module in model.named_modules()}
    turned = frozenset(
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)
    )
    output = model.get_output_embeddings()
    return Names(
        NamedWeights(StoredBase(folder), model),
        turned,
        model,
        embedding=f"{modules[id(model.get_input_embeddings())]}.weight",
        head=f"{modules[id(output)]}.weight" if output is not None else "",
    )
