"""What stands on a model where a language model has its output head: a head that scores, and how files name it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["sequence", "token"]

# How the class of such a model ends, and PEFT's word for what an adapter of it is for.
CLASSES: dict[Kind, str] = {"sequence": "ForSequenceClassification", "token": "ForTokenClassification"}
TASKS: dict[Kind, str] = {"sequence": "SEQ_CLS", "token": "TOKEN_CLS"}
LANGUAGE_TASK = "CAUSAL_LM"
# The classes of transformers that load a model of any family with such a head, as the key `model_type` names them.
AUTO_CLASSES: dict[str, Kind] = {f"AutoModel{ending}": kind for kind, ending in CLASSES.items()}
# What the two classes of a token are called: those of the steps that a process reward model judges.
STEP_CLASSES = ("wrong", "right")


@dataclass(frozen=True)
class Head:
    """`labels` scores: of a whole `sequence`, read at its last token, or of each `token`."""

    kind: Kind
    labels: int

    @property
    def task(self) -> str:
        """PEFT's word for it."""
        return TASKS[self.kind]

    @property
    def names(self) -> tuple[str, ...]:
        """What the scores are called in a config.json; none where transformers may number them."""
        return STEP_CLASSES if self.kind == "token" and self.labels == len(STEP_CLASSES) else ()

    def __str__(self) -> str:
        of_what = "whole sequences" if self.kind == "sequence" else "tokens"
        return f"a model that scores {of_what} ({self.labels} score{'s' * (self.labels > 1)})"


def head_of_config(stored: Mapping[str, Any]) -> Head | None:
    """The head of the model that a config.json describes; None of a language model."""
    named = [str(name) for name in stored.get("architectures") or []]
    for kind, ending in CLASSES.items():
        if any(name.endswith(ending) for name in named):
            # transformers leaves out what it takes anyway: two labels.
            labels = stored.get("id2label")
            return Head(kind, 2 if labels is None else len(labels))
    return None


def kind_of_adapter(stored: Mapping[str, Any]) -> Kind | None:
    """The kind of head that an adapter of these settings has with it; None of a language model's."""
    return next((kind for kind, task in TASKS.items() if stored.get("task_type") == task), None)
