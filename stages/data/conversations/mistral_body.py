"""Conversations as mistral-common renders them: the token ids of each turn, by the rules of the tokenizer's version."""

from pathlib import Path
from typing import Any

from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from pydantic import ValidationError

from tunemill.stages.data.conversations.example import BadRowError, Message, Rendered, RenderedTurn

# How mistral-common refuses a conversation: by errors of its own, of pydantic, and by assertions on its input.
REFUSALS = (MistralCommonException, ValueError, AssertionError, TypeError, KeyError, NotImplementedError)


class MistralRules:
    """Renders conversations by a tekken.json, in the mode for training: the last message must be an answer."""

    def __init__(self, file: Path) -> None:
        self._turns: list[RenderedTurn] = []
        self._tokenizer = MistralTokenizer.from_file(str(file), mode=ValidationMode.finetuning)
        self._tokenizer.instruct_tokenizer = _noting(self._tokenizer.instruct_tokenizer, self._turns)
        words = self._tokenizer.instruct_tokenizer.tokenizer
        self._control = frozenset(range(words.num_special_tokens))

    def __call__(self, messages: list[Message], tools: list[Any] | None) -> Rendered:
        """The tokens of a conversation. Raises BadRowError where mistral-common refuses it."""
        self._turns.clear()
        try:
            request = ChatCompletionRequest.from_openai(messages, tools=tools)
            ids = list(self._tokenizer.encode_chat_completion(request).tokens)
        except REFUSALS as error:
            raise BadRowError(f"mistral-common refuses the row: {_said(error)}") from None
        turns = tuple(self._turns)
        start = len(ids) - sum(len(turn.ids) for turn in turns)
        assert start >= 0 and ids[start:] == [token for turn in turns for token in turn.ids]
        return Rendered(ids[:start], turns, self._control)


def _noting(instruct: Any, turns: list[RenderedTurn]) -> Any:
    """The same tokenizer of turns, one that also puts down the ids of each turn when it has made them."""

    def note(role: str, message: Any, made: Any) -> Any:
        # A user's turn comes with its images; which others do depends on the version of mistral-common.
        ids = made[0] if isinstance(made, tuple) else made
        turns.append(RenderedTurn(role, list(ids), getattr(message, "tool_call_id", None)))
        return made

    class Noting(type(instruct)):  # type: ignore[misc]
        def encode_system_message(self, message: Any, *more: Any, **named: Any) -> Any:
            return note("system", message, super().encode_system_message(message, *more, **named))

        def encode_user_message(self, message: Any, *more: Any, **named: Any) -> Any:
            return note("user", message, super().encode_user_message(message, *more, **named))

        def encode_assistant_message(self, message: Any, *more: Any, **named: Any) -> Any:
            return note("assistant", message, super().encode_assistant_message(message, *more, **named))

        def encode_tool_message(self, message: Any, *more: Any, **named: Any) -> Any:
            return note("tool", message, super().encode_tool_message(message, *more, **named))

    return Noting(instruct.tokenizer, instruct.image_encoder, instruct.audio_encoder)


def _said(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if isinstance(error, KeyError):
        return f"a message has no {error}"
    text = str(getattr(error, "message", "") or error) or type(error).__name__
    return text.splitlines()[0]
