"""What the tensors of a base are called in its files, and how they lie there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers.pytorch_utils import Conv1D

from tunemill.stages.models.skeleton_body import skeleton_of_folder
from tunemill.stages.models.weights import StoredTensor, tensors_of_model


@dataclass(frozen=True)
class Names:
    """`turned`: weights of modules that hold them as (in, out), by their names in the model.

    `embedding` and `head`: the weights of the embeddings and of the output head, as the files call them; `tied`:
    whether the files hold them as one. `skeleton`: the model without weights. `prefix` stands before names in the
    model that the files leave it away from.
    """

    tensors: Mapping[str, StoredTensor]
    prefix: str
    turned: frozenset[str]
    skeleton: Any = None
    embedding: str = ""
    head: str = ""

    @property
    def tied(self) -> bool:
        """Whether the output head is stored as the embeddings."""
        return bool(self.head) and self.head not in self.tensors and self.embedding in self.tensors

    def stored(self, name: str) -> str:
        """The name in the files: transformers finds the tensors of a bare model without the prefix of its head."""
        bare = name.removeprefix(self.prefix)
        return bare if name not in self.tensors and bare in self.tensors else name


def names_of(folder: Path) -> Names:
    """The names of a model folder."""
    model = skeleton_of_folder(folder)
    modules = {id(module): name for name, module in model.named_modules()}
    turned = frozenset(
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)
    )
    found = Names(tensors_of_model(folder), f"{model.base_model_prefix}.", turned)
    output = model.get_output_embeddings()
    embedding = f"{modules[id(model.get_input_embeddings())]}.weight"
    head = f"{modules[id(output)]}.weight" if output is not None else ""
    return replace(found, skeleton=model, embedding=found.stored(embedding), head=found.stored(head))
