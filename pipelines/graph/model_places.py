"""Which nodes are a pipeline's finished models, by the names that `--of` takes."""

from dataclasses import dataclass

from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.stages.artifacts import Adapter
from tunemill.stages.choices import nearest
from tunemill.stages.errors import SettingError

# What is taken where nobody says, if it is there: the better first.
BEST = ("merged", "trained")
WHOLE = {"base": "base_model", "merged": "merged", "quantized": "quantized"}
EXPORTED = "exported_"


@dataclass(frozen=True)
class ModelNodes:
    """The node of a model; of an adapter the one of the base that it was trained on, and its own."""

    what: str
    model: str
    adapter: str | None = None

    @property
    def nodes(self) -> frozenset[str]:
        """Both."""
        return frozenset({self.model, *([] if self.adapter is None else [self.adapter])})


def models_of(pipeline: Pipeline) -> dict[str, ModelNodes]:
    """Every model that can be asked something, the best first."""
    nodes = {node.name: node for node in pipeline.nodes}
    found = {what: ModelNodes(what, name) for what, name in WHOLE.items() if name in nodes}
    found["trained"] = _trained(nodes["trained"])
    found |= {
        name: ModelNodes(name, name)
        for name, node in nodes.items()
        if name.startswith(EXPORTED) and "adapter" not in node.inputs
    }
    return {what: found[what] for what in (*BEST, *found) if what in found}


def model_of(pipeline: Pipeline, what: str) -> ModelNodes:
    """One of them. Raises SettingError that lists those that there are."""
    found = models_of(pipeline)
    if what in found:
        return found[what]
    near = nearest(what, list(found))
    meant = f"; did you mean {near[0]}?" if near else "."
    raise SettingError(
        f"{what}: this pipeline makes no such model{meant} There are {', '.join(found)}; quantized takes a "
        f"`quantization`, and merged an `adapter`"
    )


def lets_code_run(pipeline: Pipeline) -> bool:
    """Whether Python files in a model's folder may run, by the YAML."""
    return pipeline.document.data.get("trust_remote_code") is True


def _trained(node: Node) -> ModelNodes:
    if not issubclass(node.stage.output, Adapter):
        return ModelNodes("trained", node.name)
    (base,) = node.inputs["base_model"]
    return ModelNodes("trained", base, node.name)
