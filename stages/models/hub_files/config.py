"""What is fetched from the Hub, and how."""

from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from tunemill.stages.declaration import GraphMark, Idle, Runtime, SourceMark, StageConfig
from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tunemill.stages.models.files import INDEX_FILE
from tunemill.stages.models.hub_files.wanted import beside_weights, index_name, not_ignored, tokenizer_names


class HubFilesConfig(StageConfig):
    """A repository of the Hub, and which of its files are needed."""

    repository: Annotated[
        str,
        GraphMark(),
        SourceMark(remote=True, revision="revision", token="hf_use_auth_token", needs="counting"),  # noqa: S106
    ] = Field(description="the repository, as hf://models/<name>")
    needed: Annotated[Literal["model", "tokenizer", "config", "adapter"], GraphMark()] = Field(
        "model",
        description="what is needed of it: a whole model with its tokenizer, the tokenizer alone, its config, or an "
        "adapter",
    )
    revision: Annotated[Runtime[str | None], GraphMark()] = Field(
        None,
        description="branch, tag or commit, unset takes main: the key holds the hashes of the needed files",
    )
    hf_use_auth_token: Runtime[bool | None] = Field(
        None,
        description="true demands a Hub token, false sends none, unset sends one if there is one: "
        "who asks for a commit does not change it",
    )
    base_model_ignore_patterns: list[str] = Field(
        [],
        description="files of the repository that are not fetched, as patterns of names such as original/*",
    )
    trust_remote_code: bool = Field(
        False, description="the model's Python files are fetched too, for they will run"
    )
    reinit_weights: bool = Field(False, description="weights are drawn anew, so none are fetched")

    @field_validator("base_model_ignore_patterns", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def counting(self, names: Collection[str]) -> list[str] | None:
        """The files that count, of all that a repository has: those that may be fetched, by their names alone.

        Which weights an index names is in the index; all that it might name count. None where there is no such model.
        """
        ignored = self.base_model_ignore_patterns
        left = not_ignored(names, ignored)
        if self.needed == "tokenizer":
            return tokenizer_names(left)
        if self.needed == "adapter":
            return [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if name in names]
        try:
            config_only = self.needed == "config"
            found = beside_weights(
                left, self.repository, ignored, code=self.trust_remote_code, config_only=config_only
            )
            reads_weights = not (self.reinit_weights or config_only)
            first = index_name(left, self.repository, ignored) if reads_weights else None
        except (SettingError, SourceError):
            return None
        if first is not None:
            found.add(first)
        if first == INDEX_FILE:
            found.update(name for name in left if name.endswith(".safetensors"))
        return sorted(found)

    def semantic(self) -> dict[str, Any]:
        """As in the base class. What is said of weights and of code changes nothing of a tokenizer."""
        unread: dict[str, tuple[str, ...]] = {
            "tokenizer": ("reinit_weights", "trust_remote_code"),
            "config": ("reinit_weights",),
            "adapter": ("reinit_weights", "trust_remote_code", "base_model_ignore_patterns"),
        }
        left_out = unread.get(self.needed, ())
        return {key: value for key, value in super().semantic().items() if key not in left_out}

    def runs_code(self) -> Iterator[Idle]:
        """Code beside a config alone; of that beside a model the stage tells that runs it."""
        if self.trust_remote_code and self.needed == "config":
            yield Idle(
                "trust_remote_code",
                "whatever code lies beside base_model_config will run, as it is at the commit that is fetched",
            )
