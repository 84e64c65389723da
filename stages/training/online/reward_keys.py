"""The keys of rewards: which functions and models say how good a completion is, and how they are asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from tunemill.stages.declaration import (
    CodeMark,
    ConflictError,
    Fault,
    RuntimeMark,
    SourceMark,
    YamlMark,
)
from tunemill.stages.models.heads import Head, head_of_config
from tunemill.stages.models.model_folder import fault_of_folder, fault_of_json, settings_of
from tunemill.stages.own_classes import dotted, file_of, looked_for, may_bind, module_tree, not_installed
from tunemill.stages.package_versions import version_or_contents
from tunemill.stages.training.online.environment_keys import EnvironmentKeys
from tunemill.stages.training.online.reward_calls import KEY
from tunemill.stages.training.online.tasksets import (
    PACKAGE,
    fault_of_package,
    fault_of_taskset,
    imports_verifiers,
    is_taskset,
    module_of,
    taskset_id,
)

# Of other tools, and what to do here.
ELSEWHERE = {
    "axolotl.integrations.nemo_gym.": "servers of NeMo Gym are not asked here. Write a function beside the YAML that "
    "asks one",
    "axolotl.": "Axolotl's own functions are not there. Write one beside the YAML",
    "trl.rewards.": "TRL is not there when a pipeline runs. Write a function beside the YAML, or copy it there",
}


def is_model_folder(name: str) -> bool:
    """Whether a name in `trl.reward_funcs` is that of a local folder, and so of a reward model."""
    if is_taskset(name):
        return False
    return "://" not in name and ".py:" not in name and ("/" in name or name.startswith((".", "~")))


def is_asset(name: str) -> bool:
    """Whether a name in `trl.reward_funcs` is that of another pipeline's reward model."""
    return name.startswith("asset://")


def asset_models(names: list[str]) -> list[str]:
    """Those of the names in `trl.reward_funcs` that are models of other pipelines, in their order."""
    return [name for name in names if is_asset(name)]


class RewardKeys(EnvironmentKeys):
    """What says how good a completion is."""

    reward_funcs: Annotated[list[str], YamlMark(KEY), SourceMark(is_place=is_model_folder)] = Field(
        [],
        description="what says how good a completion is: functions of your own beside the YAML (my_module.my_reward), "
        "folders of reward models, asset://<pipeline>/<node> of a pipeline that trains one, and tasksets of verifiers "
        "(a class beside the YAML, or verifiers:<id> of an installed one)",
    )
    reward_code: Annotated[list[str] | None, CodeMark(of="reward_funcs")] = Field(
        None, description="the files behind those functions"
    )
    reward_weights: Annotated[list[float] | None, YamlMark("trl.reward_weights")] = Field(
        None, description="a weight for each of trl.reward_funcs, in their order; unset weighs each by 1"
    )
    reward_num_workers: Annotated[PositiveInt, YamlMark("trl.reward_num_workers")] = Field(
        1,
        description="processes that run reward functions; with several, each call is for a part of a round's prompts, "
        "with all completions of each",
    )
    reward_timeout: Annotated[PositiveFloat, YamlMark("pipeline.reward_timeout"), RuntimeMark()] = Field(
        300.0,
        description="most seconds of a call of a reward function, of an environment or of a tool, which is then ended: "
        "its prompts are left out as failed and counted, never given a reward",
    )
    failed_rewards: Annotated[float, YamlMark("pipeline.failed_rewards")] = Field(
        0.25,
        ge=0,
        le=1,
        description="share of a round's prompts whose rewards may fail; those are left out, and more end the run",
    )

    @field_validator("reward_funcs", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("reward_funcs", mode="after")
    @classmethod
    def _are_here(cls, value: list[str]) -> list[str]:
        for name in value:
            reason = next((why for start, why in ELSEWHERE.items() if name.startswith(start)), None)
            if reason is not None:
                raise ValueError(f"{name}: {reason}")
        return value

    @property
    def own_rewards(self) -> list[str]:
        """The functions and tasksets, as they are named."""
        return [name for name in self.reward_funcs if not is_model_folder(name) and not is_asset(name)]

    @property
    def _of_own_files(self) -> list[str]:
        """Those that are in files beside the YAML."""
        return [name for name in self.own_rewards if not is_taskset(name)]

    @property
    def tasksets(self) -> list[str]:
        """The modules of installed tasksets, as Python imports them."""
        return sorted({module_of(name) for name in self.reward_funcs if is_taskset(name)})

    def used_libraries(self) -> tuple[str, ...]:
        """What scores tasks."""
        is_used = bool(self.tasksets) or imports_verifiers(self.reward_code or [])
        return (*super().used_libraries(), *((PACKAGE,) if is_used else ()))

    def semantic(self) -> dict[str, Any]:
        """With the versions of installed tasksets, and without weights that are as they would be unset."""
        found = super().semantic()
        if set(found.get("reward_weights") or []) == {1.0}:
            del found["reward_weights"]
        versions = {name: version_or_contents(name) for name in self.tasksets}
        return {**found, **({"taskset_versions": versions} if versions else {})}

    @property
    def reward_names(self) -> list[str]:
        """What each is called in figures: a function's name, a model's folder or node, an environment's; all differ."""
        found: list[str] = []
        for name in self.reward_funcs:
            is_function = name in self.own_rewards and not is_taskset(name)
            short = dotted(name).rpartition(".")[2] if is_function else Path(taskset_id(name)).name
            found.append(short if short not in found else f"{short}_{len(found) + 1}")
        for short in self.environment_rewards:
            found.append(short if short not in found else f"{short}_{len(found) + 1}")
        return found

    @property
    def weights(self) -> list[float]:
        """A weight for each of `reward_names`: what an environment says by itself counts 1."""
        given = [1.0] * len(self.reward_funcs) if self.reward_weights is None else self.reward_weights
        return [*given, *(1.0 for _ in self.environment_rewards)]

    @model_validator(mode="after")
    def _rewards_fit(self) -> Self:
        if self.reward_weights is not None and len(self.reward_weights) != len(self.reward_funcs):
            raise ConflictError(
                f"trl.reward_weights: {len(self.reward_weights)} weights for {len(self.reward_funcs)} of "
                f"{KEY}. Give one for each",
                "reward_weights",
                "reward_funcs",
            )
        if self.reward_funcs and not any(self.weights):
            raise ConflictError(
                "trl.reward_weights: all are 0, so no completion is better than another, and nothing is learned. Give "
                "one that is not",
                "reward_weights",
            )
        for name in self._of_own_files:
            if file_of(name, self.reward_code or []) is None:
                raise ConflictError(
                    f"{KEY}: {name}: there is no {looked_for(name)} beside the YAML. Write my_module.my_reward "
                    f"for a function of your own, or a folder of a reward model",
                    "reward_funcs",
                )
        return self

    def faults(self) -> Iterator[Fault]:
        """Functions that are not there, and folders of no reward model; the source is read, and not run."""
        yield from super().faults()
        broken = next(filter(None, map(_fault_of_file, self.reward_code or [])), None)
        if broken is not None:
            yield Fault("reward_funcs", broken)
        for name in self.reward_funcs:
            reason = _fault_of_model(Path(name)) if is_model_folder(name) else None
            if is_taskset(name):
                reason = fault_of_taskset(name)
            elif name in self.own_rewards and broken is None:
                reason = _fault_of_function(name, self.reward_code or [])
            if reason is not None:
                yield Fault("reward_funcs", reason)
        for file, package, line in not_installed(self.reward_code or []):
            reason = f"imports {package}, which is not installed"
            yield Fault(
                "reward_funcs", f"{file}, line {line}: {fault_of_package() if package == PACKAGE else reason}"
            )
            break


def _fault_of_function(name: str, files: list[str]) -> str | None:
    file, function = file_of(name, files), dotted(name).rpartition(".")[2]
    assert file is not None, "checked"
    return None if may_bind(module_tree(file), function) else f"{file} has no function {function}"


def _fault_of_file(file: str) -> str | None:
    try:
        module_tree(Path(file))
    except ValueError as error:
        return str(error)
    return None


def _fault_of_model(folder: Path) -> str | None:
    if not folder.exists():
        # Said as of every source that is not there.
        return None
    if reason := fault_of_folder(folder):
        return reason
    stored = settings_of(folder)
    if stored is None:
        return fault_of_json(folder / "config.json")
    head = head_of_config(stored)
    return (
        None
        if is_scorer(head)
        else f"{folder}: it is {head or 'a language model'}, and a reward model scores texts"
    )


def is_scorer(head: Head | None) -> bool:
    """Whether a model gives a whole text one number."""
    return head is not None and head.kind == "sequence"
