"""The keys of environments: what a completion may call while it is sampled, and what samples by itself."""

import ast
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from tunemill.stages.declaration import (
    CodeMark,
    ConflictError,
    Fault,
    Idle,
    RuntimeMark,
    StageConfig,
    YamlMark,
)
from tunemill.stages.own_classes import (
    dotted,
    file_of,
    looked_for,
    may_bind,
    module_tree,
    not_installed,
)
from tunemill.stages.training.online.called_source import fault_of_source
from tunemill.stages.training.online.environment_source import says_rewards
from tunemill.stages.training.online.served import NAME, PACKAGE, fault_of_address, is_served

FACTORY, TOOLS, ROLLOUT = "trl.environment_factory", "trl.tools", "trl.rollout_func"
# What rewards are given beside the columns of the rows.
ENVIRONMENTS = "environments"
# Of other tools, and what to do here.
ASKS = "Write a class beside the YAML whose methods ask it, with its package imported there"
ELSEWHERE = {
    "openenv.": f"name an environment of OpenEnv by the address of its server (http://localhost:8000). Or: {ASKS}",
    "verifiers.": f"tasksets of verifiers are rewards (trl.reward_funcs), and its harnesses do not run here. {ASKS}",
    "axolotl.": "Axolotl's own functions are not there. Write one beside the YAML",
    "trl.": "TRL is not there when a pipeline runs. Write it beside the YAML, or copy it there",
}
INSTALL = "pip install 'tunemill[openenv]'"
# What OpenEnv's client was tried with.
TRIED = "0.10."
RENDERED = ("chat_template_kwargs", "rewards_chat_template_kwargs")


class EnvironmentKeys(StageConfig):
    """What completions may call while they are sampled."""

    environment_factory: Annotated[str | None, YamlMark(FACTORY)] = Field(
        None,
        description="a class beside the YAML (my_module.MyEnvironment), or a function that makes an environment, or "
        "the address of a server of OpenEnv (http://localhost:8000): each completion has one of its own, whose methods "
        "or actions it may call; docs/online-rl.md has more",
    )
    environment_code: Annotated[list[str] | None, CodeMark(of="environment_factory")] = Field(
        None, description="the files behind it"
    )
    environment_reward: Annotated[Literal["sum", "last"], YamlMark("pipeline.environment_reward")] = Field(
        "sum",
        description="what counts of the rewards that a server of OpenEnv gives for the actions of a completion: their "
        "sum, or the last",
    )
    tools: Annotated[list[str], YamlMark(TOOLS)] = Field(
        [], description="functions beside the YAML (my_module.my_tool) that every completion may call"
    )
    tools_code: Annotated[list[str] | None, CodeMark(of="tools")] = Field(
        None, description="the files behind them"
    )
    max_tool_calling_iterations: Annotated[
        PositiveInt | None, YamlMark("trl.max_tool_calling_iterations")
    ] = Field(
        None, description="how often a completion may call and go on; unset: while there is room for tokens"
    )
    rollout_func: Annotated[str | None, YamlMark(ROLLOUT)] = Field(
        None,
        description="a function beside the YAML (my_module.my_function) that samples completions by itself, called "
        "with prompts and what stands for TRL's trainer; docs/online-rl.md has more",
    )
    rollout_code: Annotated[list[str] | None, CodeMark(of="rollout_func")] = Field(
        None, description="the files behind it"
    )
    chat_template_kwargs: Annotated[dict[str, Any], RuntimeMark()] = Field(
        {},
        description="variables given to the chat template, which with environments, tools and rollout_func is "
        "rendered here: without them it was before",
    )
    rewards_chat_template_kwargs: Annotated[
        dict[str, Any], YamlMark("trl.chat_template_kwargs"), RuntimeMark()
    ] = Field({}, description="the same, by the name of TRL: read here with those alone")

    @field_validator("environment_factory", mode="before")
    @classmethod
    def _is_one(cls, value: object) -> object:
        if isinstance(value, dict):
            raise ValueError(
                f"{value!r:.80}: several environments by name are not there. Name one class, and let its reset look at "
                f"a column of the row"
            )
        return value

    @field_validator("tools", mode="before")
    @classmethod
    def _tool_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @property
    def calls_tools(self) -> bool:
        """Whether completions may call something."""
        return self.environment_factory is not None or bool(self.tools)

    @property
    def is_served(self) -> bool:
        """Whether the environment is behind an address."""
        return is_served(self.environment_factory)

    @property
    def called_factory(self) -> str | None:
        """What makes environments, as a module's name and its own, or an address."""
        name = self.environment_factory
        return name if name is None or self.is_served else dotted(name)

    @property
    def samples_otherwise(self) -> bool:
        """Whether a completion is not one turn behind a prompt that was rendered before."""
        return self.calls_tools or self.rollout_func is not None

    @property
    def called_code(self) -> list[str]:
        """The files behind what they may call."""
        return list(dict.fromkeys((*(self.environment_code or []), *(self.tools_code or []))))

    @property
    def environment_rewards(self) -> list[str]:
        """The name of what an environment says of a completion by itself; none where its class says nothing."""
        if self.is_served:
            return [NAME]
        if self.environment_factory is None or not says_rewards(
            self.environment_factory, self.environment_code or []
        ):
            return []
        return [dotted(self.environment_factory).rpartition(".")[2]]

    @property
    def template_variables(self) -> dict[str, Any]:
        """What the chat template is given."""
        return {**self.chat_template_kwargs, **self.rewards_chat_template_kwargs}

    def used_libraries(self) -> tuple[str, ...]:
        """What speaks to a server."""
        return (*super().used_libraries(), *((PACKAGE,) if self.is_served else ()))

    def deciding(self) -> frozenset[str]:
        """What prompts are rendered with, where that is done here."""
        return super().deciding() | (frozenset(RENDERED) if self.samples_otherwise else frozenset())

    @model_validator(mode="after")
    def _one_samples(self) -> Self:
        if self.rollout_func is not None and self.calls_tools:
            other = "environment_factory" if self.environment_factory is not None else "tools"
            raise ConflictError(
                f"{ROLLOUT} samples by itself, and trl.{other} is called by what is sampled here. Keep one",
                "rollout_func",
                other,
            )
        return self

    @model_validator(mode="after")
    def _called_is_ours(self) -> Self:
        for key, name in self._named():
            reason = next((why for start, why in ELSEWHERE.items() if name.startswith(start)), None)
            if reason is not None:
                raise ConflictError(f"trl.{key}: {name}: {reason}", key)
        return self

    @model_validator(mode="after")
    def _address_is_one(self) -> Self:
        reason = fault_of_address(str(self.environment_factory)) if self.is_served else None
        if reason is not None:
            raise ConflictError(f"{FACTORY}: {reason}", "environment_factory")
        return self

    @model_validator(mode="after")
    def _called_is_here(self) -> Self:
        for key, name, files in self._of_files():
            if file_of(name, files) is None:
                raise ConflictError(
                    f"trl.{key}: {name}: there is no {looked_for(name)} beside the YAML. Write my_module.my_name for "
                    f"something of your own",
                    key,
                )
        called_by = [dotted(name).rpartition(".")[2] for name in self.tools]
        if twice := next((name for name in called_by if called_by.count(name) > 1), None):
            raise ConflictError(
                f"{TOOLS}: two are named {twice}, and a model calls a tool by its name. Rename one", "tools"
            )
        return self

    def _named(self) -> Iterator[tuple[str, str]]:
        """Key and name of what is called."""
        yield from ((key, name) for key, name, _ in self._called())

    def _of_files(self) -> Iterator[tuple[str, str, list[str]]]:
        """Those of them that are in files."""
        yield from (one for one in self._called() if not (one[0] == "environment_factory" and self.is_served))

    def _called(self) -> Iterator[tuple[str, str, list[str]]]:
        """Key, name and files of what is called."""
        if self.environment_factory is not None:
            yield "environment_factory", self.environment_factory, self.environment_code or []
        for name in self.tools:
            yield "tools", name, self.tools_code or []
        if self.rollout_func is not None:
            yield "rollout_func", self.rollout_func, self.rollout_code or []

    def faults(self) -> Iterator[Fault]:
        """Classes and functions that are not there, or cannot be called as they are; no line of them runs."""
        yield from super().faults()
        if self.is_served and (reason := fault_of_package()) is not None:
            yield Fault("environment_factory", reason)
        for key, name, files in self._of_files():
            if (reason := fault_of_named(name, files) or fault_of_source(key, name, files)) is not None:
                yield Fault(key, reason)

    def idle(self) -> Iterator[Idle]:
        """How often to call where nothing is called, and what counts of rewards that nobody gives."""
        yield from super().idle()
        if self.environment_reward != "sum" and not self.is_served:
            yield Idle("environment_reward", f"{FACTORY} is not the address of a server")
        if self.max_tool_calling_iterations is not None and not self.calls_tools:
            yield Idle("max_tool_calling_iterations", f"there is no {FACTORY}, and no {TOOLS}")


def fault_of_package() -> str | None:
    """Why no server of OpenEnv can be spoken to."""
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        return f"needs openenv, which is not installed (openenv-core is its old name). {INSTALL}"
    return None if found.startswith(TRIED) else f"needs openenv {TRIED}*, and {found} is installed. {INSTALL}"


def fault_of_named(name: str, files: list[str]) -> str | None:
    """Why a name in a file of one's own means nothing that can be called; None where it may."""
    file, wanted = file_of(name, files), dotted(name).rpartition(".")[2]
    assert file is not None, "checked"
    try:
        trees = {one: module_tree(Path(one)) for one in (str(file), *files)}
    except ValueError as error:
        return str(error)
    if not may_bind(trees[str(file)], wanted):
        return f"{file} has no {wanted}"
    if _is_a_value(trees[str(file)], wanted):
        return f"{file}: {wanted} is a value, and must be something that can be called"
    missing = next(not_installed(files), None)
    return (
        None
        if missing is None
        else f"{missing[0]}, line {missing[2]}: imports {missing[1]}, which is not installed"
    )


def _is_a_value(tree: ast.Module, name: str) -> bool:
    """Whether a name is bound once, to something that is written out."""
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(one, ast.Name) and one.id == name for one in node.targets)
    ]
    written = (ast.Constant, ast.List, ast.Dict, ast.Tuple, ast.Set, ast.JoinedStr)
    return len(values) == 1 and isinstance(values[0], written)
