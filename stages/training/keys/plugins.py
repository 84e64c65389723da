"""The key `plugins`: Axolotl's, each of which stands for keys here, and classes of one's own beside the YAML."""

from collections.abc import Iterator
from inspect import signature
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from tunemill.stages.choices import ChoiceError, nearest
from tunemill.stages.declaration import CodeMark, ConflictError, Fault, OwnKeysMark, StageConfig
from tunemill.stages.own_classes import (
    classes_of,
    file_of,
    looked_for,
    methods_of,
    misfit,
    not_installed,
    signature_of,
)
from tunemill.stages.training.keys.rates import GROKFAST_PLUGINS
from tunemill.stages.training.plugins import HOOKS, REFUSED, Plugin

LIGER_PLUGINS = {"liger", "axolotl.integrations.liger.LigerPlugin"}
CUT_PLUGINS = {"cut_cross_entropy", "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"}
SPECTRUM_PLUGINS = {"axolotl.integrations.spectrum.SpectrumPlugin"}
DISTILLATION_PLUGINS = {"axolotl.integrations.kd.KDPlugin"}
# Axolotl's plugins without which the result is the same, and why.
IDLE_PLUGINS = {
    "axolotl.integrations.expert_parallel.ExpertParallelPlugin": "spreads experts over several GPUs, and one device "
    "trains all of them",
    "axolotl.integrations.kernels.KernelsPlugin": "its kernels compute experts, which transformers computes in its "
    "own way",
    "axolotl.integrations.llm_compressor.LLMCompressorPlugin": "llmcompressor keeps pruned weights at zero by itself",
    "axolotl.integrations.lm_eval.LMEvalPlugin": "lm_eval_tasks asks for the nodes evaluation_lm_eval_of_* by itself",
    "axolotl.integrations.swanlab.SwanLabPlugin": "the swanlab_* keys switch SwanLab on by themselves",
}
PLUGINS = (
    LIGER_PLUGINS
    | CUT_PLUGINS
    | GROKFAST_PLUGINS
    | SPECTRUM_PLUGINS
    | DISTILLATION_PLUGINS
    | set(IDLE_PLUGINS)
)
# Axolotl's other plugins, and why they cannot be honoured.
OTHER_PLUGINS = {
    "axolotl.integrations.diffusion.DiffusionPlugin": "trains by filling in masked tokens, a method that is not "
    "supported yet",
}
KNOWN = frozenset({*PLUGINS, *OTHER_PLUGINS})
# Keys that nobody would read where a plugin makes the optimizer, or the scheduler.
MADE_BY_HOOK = {
    "create_optimizer": (
        "optimizer", "optim_args", "optim_target_modules", "lr_groups", "embedding_lr", "embedding_lr_scale",
        "loraplus_lr_ratio", "loraplus_lr_embedding",
    ),
    "create_lr_scheduler": (
        "lr_scheduler", "lr_scheduler_kwargs", "cosine_min_lr_ratio", "cosine_constant_lr_ratio",
        "lr_quadratic_warmup", "jagged_restart_steps",
    ),
}  # fmt: skip


class PluginKeys(StageConfig):
    """Plugins by name; of those of one's own the source and the values of their keys."""

    plugins: list[str] = Field(
        [],
        description="Axolotl's plugins by their names there (Liger, Cut Cross Entropy, Grokfast, ...), and classes of "
        "your own: my_module.MyPlugin",
    )
    plugin_code: Annotated[list[str] | None, CodeMark(of="plugins", known=KNOWN)] = Field(
        None, description="the files behind plugins of one's own"
    )
    plugin_settings: Annotated[dict[str, Any], OwnKeysMark(of="plugins", known=KNOWN)] = Field(
        {}, description="the values of the keys that they declare"
    )

    @field_validator("plugins", mode="after")
    @classmethod
    def _known_plugins(cls, value: list[str]) -> list[str]:
        for name in value:
            if name in OTHER_PLUGINS:
                raise ValueError(f"{name}: {OTHER_PLUGINS[name]}. Take it out")
            if name not in PLUGINS and ("." not in name or name.startswith("axolotl.")):
                raise ChoiceError(name, sorted(PLUGINS))
        return value

    @property
    def own_plugins(self) -> list[str]:
        """The plugins that are classes beside the YAML."""
        return [name for name in self.plugins if name not in PLUGINS]

    @property
    def own_trainer(self) -> str | None:
        """A Trainer of one's own; none but where a method lets one be."""
        return None

    @property
    def own_code(self) -> list[str]:
        """The files of everything that is one's own."""
        return self.plugin_code or []

    @model_validator(mode="after")
    def _plugins_are_there(self) -> Self:
        for name in self.own_plugins:
            if file_of(name, self.plugin_code or []) is None:
                near = nearest(name, sorted(PLUGINS))
                raise ConflictError(
                    f"plugins: {name}: there is no {looked_for(name)} beside the YAML. Write my_module.MyPlugin for a "
                    f"class of your own, or one of Axolotl's by its name",
                    "plugins",
                    suggestion=near[0] if near else None,
                )
        return self

    def faults(self) -> Iterator[Fault]:
        """Classes that are not there, and hooks that have no place here; the source is read, and not run."""
        yield from super().faults()
        for name in self.own_plugins:
            for reason in self.faults_of(name):
                yield Fault("plugins", f"{name}: {reason}")
                break
        for file, package, line in not_installed(self.plugin_code or []) if self.own_plugins else ():
            yield Fault("plugins", f"{file}, line {line}: imports {package}, which is not installed")
            break

    def faults_of(self, name: str) -> Iterator[str]:
        """What is wrong with one plugin, as far as its source says."""
        try:
            file, classes = classes_of(name, self.plugin_code or [])
        except ValueError as error:
            yield str(error)
            return
        methods = methods_of(classes)
        for hook in sorted(REFUSED.keys() & methods.keys()):
            yield f"{hook} ({file}, line {methods[hook].lineno}): {REFUSED[hook]}"
        for hook in (name for name in HOOKS if name in methods):
            own = signature_of(methods[hook])
            wrong = own and misfit(own, signature(getattr(Plugin, hook)))
            if wrong:
                yield f"{hook}{wrong} ({file}, line {methods[hook].lineno})"
        if not methods.keys() & set(HOOKS) and not classes[0].bases:
            yield f"{file} has a class {classes[0].name} without any hook; there are {', '.join(HOOKS)}"
        yield from self.set_in_vain(methods)

    def set_in_vain(self, hooks: Any) -> Iterator[str]:
        """Keys that ask for another optimizer or scheduler than the one that a hook makes."""
        for hook, keys in MADE_BY_HOOK.items():
            given = [
                key for key in keys if hook in hooks and key in type(self).model_fields and self.is_set(key)
            ]
            if given:
                yield f"{hook} makes what {given[0]} asks for. Take {given[0]} out, or the hook"
