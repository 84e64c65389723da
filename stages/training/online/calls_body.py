"""How a chat template writes calls of tools and what they give, and how such a text is read again."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.conversations.example import Render
from tunemill.stages.data.conversations.loaded import load_to_encode
from tunemill.stages.data.conversations.template_body import ASKED, renderer
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.online.episode import Message

CALL = {"type": "function", "function": "{content}"}
NAMED_CALL = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}
THOUGHTS = {"open": "<think>", "close_pattern": r"</think>\s*", "content": "text"}
# How families of models write a call, in the words of transformers' `response_template`.
CALLS: Mapping[str, dict[str, Any]] = {
    "JSON between <tool_call> and </tool_call>": {
        "open": "<tool_call>", "close_pattern": r"</tool_call>\s*", "repeats": True, "content": "json",
        "transform": CALL,
    },
    "<function=name> with a tag for each parameter": {
        "open_pattern": r"<tool_call>\s*<function=(?P<name>[^\n>]+)>", "close_pattern": r"</tool_call>\s*",
        "repeats": True, "content": "xml-inline",
        "content_args": {
            "tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>",
            "value_parser": {"name": "text"},
        },
        "transform": NAMED_CALL,
    },
    "JSON with name and parameters": {
        "open_pattern": r'\{"name":\s*"(?P<name>[^"]+)",\s*"parameters":\s*', "close_pattern": r"\}\s*$",
        "repeats": True, "content": "json", "transform": NAMED_CALL,
    },
}  # fmt: skip
MARK, SAID = "marked-7", "said-7"
PROBE: Message = {"type": "function", "function": {"name": "probe", "arguments": {"word": MARK}}}


class Talk:
    """Conversations with tools as tokens, by the chat template of the model's folder, and answers as messages."""

    def __init__(
        self,
        folder: Tokenizer,
        variables: Mapping[str, Any],
        ends: frozenset[int],
        tools: list[dict[str, Any]],
    ) -> None:
        """Raises SettingError for a template that cannot be used so, saying what is missing in it."""
        loaded, reference = load_to_encode(folder)
        if loaded.chat_template is None:
            raise SettingError(
                "the tokenizer has no chat template, by which tools are told to a model. Choose one with chat_template"
            )
        self._encoder, self._tools = Encoder(reference, loaded.eos_token_id), tools
        self._words = load_words(folder.path)
        self.end = min(ends, default=0)
        self._ends = [text for text in (loaded.decode([one]) for one in sorted(ends)) if text]
        template = loaded.chat_template
        self._asked = self._rendering(renderer(loaded, template, {**variables, ASKED: True}))
        self._told = self._rendering(renderer(loaded, template, {**variables, ASKED: False}))
        self.suffix_ids([{"role": "tool", "name": "probe", "content": SAID}])
        self._spec = getattr(self._words, "response_template", None) or self._found()

    def _rendering(self, render: Render) -> Callable[[list[Message]], str]:
        def rendered(messages: list[Message]) -> str:
            try:
                return render(messages, self._tools)
            except TemplateError as error:
                raise UserError(f"the chat template refuses a conversation with tools: {error}") from None

        return rendered

    def prompt_ids(self, messages: list[Message]) -> tuple[int, ...]:
        """A prompt with its tools, up to where the model answers."""
        return tuple(self._encoder.ids_of(self._asked(messages)))

    def suffix_ids(self, told: Sequence[Message]) -> list[int]:
        """What stands behind an answer that called tools: what they gave, up to where the model goes on."""
        call = {**PROBE, "function": {**PROBE["function"], "name": told[0]["name"]}}
        asking: list[Message] = [
            {"role": "user", "content": "."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        text = self._asked([*asking, *told])
        place = text.find(MARK)
        if place < 0:
            raise SettingError(f"the chat template does not write calls of tools. {REMEDY}")
        ends = [found + len(end) for end in self._ends if (found := text.find(end, place)) >= 0]
        suffix = text[min(ends) :] if ends else ""
        if str(told[-1]["content"]) not in suffix:
            raise SettingError(
                f"the chat template does not end an answer that calls tools before it writes what they gave. {REMEDY}"
            )
        return self._encoder.ids_of(suffix)

    def message_of(self, ids: Sequence[int], before: Sequence[int]) -> Message:
        """An answer as a message; a call that cannot be read is its text. `before`: the tokens in front of it."""
        text = str(self._words.decode(list(ids)))
        try:
            read = self._read(text, self._spec, str(self._words.decode(list(before))))
        except (ValueError, KeyError, TypeError):
            read = {
                "role": "assistant",
                "content": str(self._words.decode(list(ids), skip_special_tokens=True)),
            }
        calls = read.get("tool_calls")
        if calls is not None and not all(map(_is_call, calls)):
            read = {
                "role": "assistant",
                "content": str(self._words.decode(list(ids), skip_special_tokens=True)),
            }
        return {"role": "assistant", "content": "", **read}

    def _read(self, text: str, spec: Mapping[str, Any], before: str) -> Message:
        found: Message = self._words.parse_response(text, schema=dict(spec), prefix=before, tools=self._tools)
        return found

    def _found(self) -> dict[str, Any]:
        """How this template writes a call: the way in which one that it has written is read again."""
        asking: list[Message] = [{"role": "user", "content": SAID}]
        call: Message = {"role": "assistant", "content": "", "tool_calls": [PROBE]}
        text = self._told([*asking, call]).rpartition(SAID)[2]
        opening = self._asked(asking).rpartition(SAID)[2]
        text = text.removeprefix(opening)
        for calls in CALLS.values():
            end = "|".join(map(re.escape, self._ends))
            closed = calls["close_pattern"].replace("$", rf"(?:{end})?\s*$")
            spec = {
                "defaults": {"role": "assistant"},
                "start_anchor": opening.partition("<think>")[0] or SAID,
                "fields": {
                    "reasoning_content": THOUGHTS,
                    "tool_calls": {**calls, "close_pattern": closed},
                    "content": {"close_pattern": rf"(?:{end})\s*", "content": "text"},
                },
            }
            try:
                read = self._read(text, spec, opening)
            except (ValueError, KeyError, TypeError):
                continue
            if read.get("tool_calls") == [PROBE]:
                return spec
        raise SettingError(
            f"the chat template writes calls of tools in a way that is not known here. Known are {', '.join(CALLS)}. "
            f"{REMEDY}"
        )


REMEDY = "Choose another one (chat_template: qwen_25, for example), or set response_template in tokenizer_config.json"


def _is_call(call: Any) -> bool:
    if not isinstance(call, dict):
        return False
    return call.get("type") != "function" or isinstance((call.get("function") or {}).get("name"), str)
