"""What the `generations` stage reads."""

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field, PositiveInt, model_validator

from tunemill.stages.declaration import Fault
from tunemill.stages.evaluation.answer_keys import BATCH_SIZE, MAX_NEW_TOKENS, AnswerKeys
from tunemill.stages.evaluation.engine_keys import VllmEngine
from tunemill.stages.evaluation.judge_keys import CLIENT
from tunemill.stages.evaluation.sampling_keys import Sampling
from tunemill.stages.models.vllm.installed import PACKAGE, fault_of, fault_of_version, version_at, version_in
from tunemill.stages.models.vllm.python_key import PYTHON_OF_VLLM, VllmPython

# Key of an entry -> the top-level key that stands for it where the entry has none.
FALLS_BACK = {"max_new_tokens": "eval_max_new_tokens", "batch_size": "eval_batch_size"}
# How many requests vLLM has at a time: it makes batches of them by itself.
REQUESTS = 64


class GenerationsConfig(AnswerKeys):
    """How answers to held-out rows are generated."""

    entry_lists: ClassVar[tuple[str, ...]] = ()

    eval_max_new_tokens: PositiveInt = Field(
        MAX_NEW_TOKENS, description="longest answer generated, in tokens"
    )
    eval_batch_size: PositiveInt = Field(
        BATCH_SIZE, description="rows per forward pass; rounding differs between sizes"
    )

    vllm_python: VllmPython = Field(None, description=PYTHON_OF_VLLM)

    @model_validator(mode="before")
    @classmethod
    def _the_entry_counts_first(cls, data: dict[str, Any]) -> dict[str, Any]:
        """A key that is not read changes no key of the cache."""
        covered = {top for own, top in FALLS_BACK.items() if data.get(own) is not None}
        if data.get("engine", "transformers") != "transformers":
            covered.add("eval_batch_size")
        return {name: value for name, value in data.items() if name not in covered}

    @property
    def longest(self) -> int:
        """Tokens of an answer at most."""
        return self.max_new_tokens or self.eval_max_new_tokens

    @property
    def rows_at_once(self) -> int:
        """Rows of a batch, of vLLM requests."""
        return self.batch_size or (self.eval_batch_size if self.vllm is None else REQUESTS)

    @property
    def vllm(self) -> VllmEngine | None:
        """How vLLM answers; None where transformers does."""
        return self.engine if isinstance(self.engine, VllmEngine) else None

    @property
    def sampling(self) -> Sampling | None:
        """How tokens are drawn; None where the likeliest is taken."""
        return Sampling(self.seed, self.temperature, self.top_p, self.top_k) if self.do_sample else None

    def semantic(self) -> dict[str, Any]:
        """Of the engine what can change an answer, not where it is."""
        found = super().semantic()
        return found if self.vllm is None else {**found, "engine": self.vllm.semantic()}

    def used_tools(self) -> Mapping[str, str]:
        """The version of vLLM. Raises SettingError where a server that is asked for it does not answer."""
        if self.vllm is None:
            return super().used_tools()
        if self.vllm.url is not None:
            return {PACKAGE: self.vllm.version or version_at(self.vllm.url)}
        return {PACKAGE: version_in(self.vllm_python) or "not installed"}

    def faults(self) -> Iterator[Fault]:
        """A vLLM that is not there, or too old, and the client that asks it."""
        yield from super().faults()
        if self.vllm is None:
            return
        reason = fault_of(self.vllm_python) if self.vllm.url is None else fault_of_version(self.vllm.version)
        if reason is None and importlib.util.find_spec(CLIENT) is None:
            reason = f"vLLM is asked by {CLIENT}, which is not installed. pip install 'tunemill[{CLIENT}]'"
        if reason is not None:
            yield Fault("engine", reason)
