"""Which nodes the verbs of Axolotl's command line mean, and what to write where a pipeline has none of them."""

from collections.abc import Callable
from dataclasses import dataclass

from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.selection import chapter_of
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.lm_eval_tasks.stage import HARNESS_EVALUATION
from tunemill.stages.evaluation.named_task.stage import TASK_EVALUATION


@dataclass(frozen=True)
class Verb:
    """The nodes that a verb brings up to date, and what a pipeline without one lacks."""

    means: Callable[[Node], bool]
    lacking: Callable[[Pipeline], str]


def nodes_of_verb(name: str, pipeline: Pipeline) -> frozenset[str]:
    """The names of the nodes. Raises SettingError that says what to write where there are none."""
    verb = VERBS[name]
    found = frozenset(node.name for node in pipeline.nodes if verb.means(node))
    if not found:
        raise SettingError(f"{pipeline.document.path}: {name}: {verb.lacking(pipeline)}")
    return found


def _named(name: str) -> Callable[[Node], bool]:
    return lambda node: node.name == name


def _by_harness(node: Node) -> bool:
    return node.stage.name in (HARNESS_EVALUATION.name, TASK_EVALUATION.name)


def _no_merged(pipeline: Pipeline) -> str:
    adapter = pipeline.document.data.get("adapter")
    if adapter is None:
        return "there is no adapter to merge: training changes the model's own weights. Write adapter: lora"
    return f"an adapter of the kind {adapter} cannot be folded into its base; use the two side by side (--of trained)"


VERBS = {
    "train": Verb(_named("trained"), lambda _: "nothing is trained"),
    "evaluate": Verb(
        lambda node: chapter_of(node) == "evaluation",
        lambda _: (
            "no model is evaluated here. Write val_set_size: 0.05 or test_datasets, which hold rows out, and no empty "
            "pipeline.evaluate"
        ),
    ),
    "merge-lora": Verb(_named("merged"), _no_merged),
    "quantize": Verb(
        _named("quantized"),
        lambda _: "nothing says how weights are to be stored. Write quantization: {weight_dtype: int8}",
    ),
    "lm-eval": Verb(
        _by_harness,
        lambda _: (
            "there is no task of lm-evaluation-harness. Write lm_eval_tasks: [...], as docs/evaluating.md says"
        ),
    ),
}
