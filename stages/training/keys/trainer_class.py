"""The key `trainer_cls`: a Trainer of one's own, for another loss of supervised training."""

from collections.abc import Iterator
from inspect import Parameter, Signature
from typing import Annotated, Self

from pydantic import Field, model_validator

from tunemill.stages.declaration import CodeMark, ConflictError, Fault
from tunemill.stages.own_classes import (
    classes_of,
    file_of,
    looked_for,
    methods_of,
    misfit,
    not_installed,
    signature_of,
)
from tunemill.stages.training.keys.kernels import KernelName, LossKernelKeys

# What a class of one's own may do in another way than transformers' Trainer. The rest of the loop stays as it is: it
# keeps the order of rows, the schedule and the checkpoints.
MAY_OVERRIDE = ("compute_loss", "training_step", "log")
COMPUTE_LOSS = Signature(
    [
        *(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", "model", "inputs")),
        Parameter("return_outputs", Parameter.POSITIONAL_OR_KEYWORD, default=False),
        Parameter("num_items_in_batch", Parameter.POSITIONAL_OR_KEYWORD, default=None),
    ]
)
"""How the loop calls it: transformers' own, which no import is worth that only reads a YAML."""
OF_ORDER = "rows come in the order of shuffle_merged_datasets, curriculum_sampling and group_by_length"
# Methods of the Trainer that are often overridden, and what does what they are for; any other is refused as well.
INSTEAD = {
    "__init__": "what it needs are keys, which a plugin may declare",
    "create_optimizer": "a plugin has a hook of this name",
    "create_scheduler": "a plugin has a hook create_lr_scheduler",
    "create_optimizer_and_scheduler": "a plugin has the hooks create_optimizer and create_lr_scheduler",
    "get_train_dataloader": OF_ORDER,
    "_get_train_sampler": OF_ORDER,
    "evaluate": "held-out rows are scored as eval_* says, and in nodes of their own",
    "prediction_step": "held-out rows are scored as eval_* says, and in nodes of their own",
    "_save_checkpoint": "checkpoints are written so that a training goes on exactly",
    "save_model": "models are written so that other nodes read them",
}


def refusal_of(method: str) -> str:
    """Why a method of the Trainer may not be overridden."""
    return (
        f"overrides {method}; a class of one's own may override {', '.join(MAY_OVERRIDE)}, and have methods of other "
        f"names. Of this one: {INSTEAD.get(method, 'it belongs to the loop, which keeps order, schedule, checkpoints')}"
    )


class TrainerClassKeys(LossKernelKeys):
    """Who computes the loss of supervised training."""

    trainer_cls: str | None = Field(
        None,
        min_length=1,
        description="a class of your own beside the YAML, `my_module.MyTrainer`: a transformers Trainer with another "
        "compute_loss, training_step or log",
    )
    trainer_code: Annotated[list[str] | None, CodeMark(of="trainer_cls")] = Field(
        None, description="the files behind that class"
    )

    @property
    def own_trainer(self) -> str | None:
        """The class beside the YAML that computes the loss."""
        return self.trainer_cls

    @property
    def own_code(self) -> list[str]:
        """The files of that class too."""
        return list(dict.fromkeys([*super().own_code, *(self.trainer_code or [])]))

    @property
    def automatic_losses(self) -> tuple[KernelName, ...]:
        """None beside a class of one's own: it may look at the logits, which a fused loss never makes."""
        return () if self.trainer_cls else super().automatic_losses

    @model_validator(mode="after")
    def _trainer_is_there(self) -> Self:
        name = self.trainer_cls
        if name is not None and file_of(name, self.trainer_code or []) is None:
            raise ConflictError(
                f"trainer_cls: {name}: there is no {looked_for(name)} beside the YAML. Write my_module.MyTrainer for a "
                f"class of your own; the method of training is chosen by rl",
                "trainer_cls",
            )
        return self

    def faults(self) -> Iterator[Fault]:
        """A class that is not there, or overrides what belongs to the loop; the source is read, and not run."""
        yield from super().faults()
        if self.trainer_cls is not None:
            reason = next(self._faults_of(self.trainer_cls, self.trainer_code or []), None)
            if reason is not None:
                yield Fault("trainer_cls", f"{self.trainer_cls}: {reason}")

    @staticmethod
    def _faults_of(name: str, files: list[str]) -> Iterator[str]:
        try:
            _, classes = classes_of(name, files)
        except ValueError as error:
            yield str(error)
            return
        if not any(one.bases for one in classes):
            yield f"line {classes[0].lineno}: must inherit from transformers' Trainer"
        for method, node in sorted(methods_of(classes).items()):
            if method in INSTEAD:
                yield f"line {node.lineno}: {refusal_of(method)}"
            own = signature_of(node)
            wrong = own and method == "compute_loss" and misfit(own, COMPUTE_LOSS, by_name=True)
            if wrong:
                yield f"line {node.lineno}: {method}{wrong}"
        for where, package, line in not_installed(files):
            yield f"{where}, line {line}: imports {package}, which is not installed"
