"""What is fetched from the Hub, and how."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from tunemill.stages.declaration import GraphMark, Idle, Runtime, SourceMark, StageConfig


class HubFilesConfig(StageConfig):
    """A repository of the Hub, and which of its files are needed."""

    repository: Annotated[
        str, GraphMark(), SourceMark(remote=True, revision="revision", token="hf_use_auth_token")  # noqa: S106
    ] = Field(description="the repository, as hf://models/<name>")
    needed: Annotated[Literal["model", "tokenizer", "config", "adapter"], GraphMark()] = Field(
        "model",
        description="what is needed of it: a whole model with its tokenizer, the tokenizer alone, its config, or an "
        "adapter",
    )
    revision: Annotated[Runtime[str | None], GraphMark()] = Field(
        None, description="branch, tag or commit, unset takes main: the key holds the commit behind it"
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
