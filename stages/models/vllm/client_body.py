"""Asking vLLM for token ids and log-probabilities, by the protocol that it has of OpenAI."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openai

from tunemill.stages.errors import SettingError
from tunemill.stages.models.endpoint_body import client_of_own, openai_client
from tunemill.stages.models.vllm.started import Started

TIMEOUT_SECONDS = 600.0
# A server whose engine has died says so before it ends.
ENDING_SECONDS = 10.0


@dataclass(frozen=True)
class Client:
    """Who asks a server for one model. `started` is the server where it was started here."""

    url: str
    model: str
    openai: openai.OpenAI
    started: Started | None = None

    def complete(self, prompt: Sequence[int], **settings: Any) -> Mapping[str, Any]:
        """The one answer to a prompt, as the server tells it. Raises SettingError where it tells none."""
        request = {"model": self.model, "prompt": list(prompt), "return_token_ids": True, **settings}
        try:
            reply: Any = self.openai.post("/completions", body=request, cast_to=object)
            found: Mapping[str, Any] = reply["choices"][0]
        except openai.OpenAIError as error:
            gone = None if _of_the_request(error) else self._gone()
            raise SettingError(gone or self._failure(error)) from error
        except (KeyError, IndexError, TypeError) as error:
            raise SettingError(f"engine: {self.url}: its answer is none of vLLM's completions") from error
        if found.get("prompt_token_ids") != list(prompt) or not isinstance(found.get("token_ids"), list):
            raise SettingError(
                f"engine: {self.url} does not tell which tokens it was asked and has answered. Use vLLM 0.10.2 or "
                f"later"
            )
        return found

    def models(self) -> dict[str, Mapping[str, Any]]:
        """What the server calls its models -> what it says of each. Raises SettingError."""
        try:
            reply: Any = self.openai.get("/models", cast_to=object)
            return {str(one["id"]): one for one in reply["data"]}
        except openai.OpenAIError as error:
            raise SettingError(self._failure(error)) from error
        except (KeyError, TypeError) as error:
            raise SettingError(
                f"engine: {self.url}/v1/models: lists no models. Is it vLLM's server?"
            ) from error

    def _gone(self) -> str | None:
        if self.started is None or (reason := self.started.why_gone(ENDING_SECONDS)) is None:
            return None
        return f"engine: vLLM ended while it answered: {reason}. All that it said is in {self.started.log}"

    def _failure(self, error: openai.OpenAIError) -> str:
        return f"engine: {self.url} gives no answer: {type(error).__name__}: {error}"


def _of_the_request(error: openai.OpenAIError) -> bool:
    """Whether a server refuses what it was sent, and lives on."""
    return isinstance(error, openai.APIStatusError) and error.status_code < 500


def client_of(url: str, model: str, started: Started | None = None) -> Client:
    """A client of a server that was started here, or of another one."""
    make = openai_client if started is None else client_of_own
    return Client(url, model, make(f"{url}/v1", timeout=TIMEOUT_SECONDS), started)
