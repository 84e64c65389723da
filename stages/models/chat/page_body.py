"""A page in the browser to talk with models, by Gradio."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event, Lock
from typing import Any

import gradio

from tunemill.stages.errors import UserError
from tunemill.stages.models.chat.sampling import Answer, Sampling
from tunemill.stages.models.chat.speaker_body import Speaker, answering, prompt_of

Talk = Callable[..., Iterator[str]]


def make_page(
    speakers: Mapping[str, Speaker], chats: bool, sampling: Sampling, system: str | None, title: str
) -> gradio.Blocks:
    """The page of one model, or of several to choose from."""
    names = list(speakers)
    choice: list[Any] = [gradio.Dropdown(names, value=names[0], label="model")] if len(names) > 1 else []
    return gradio.ChatInterface(
        talk_with(speakers, chats, sampling, system),
        title=title,
        additional_inputs=choice,
        analytics_enabled=False,
        api_name="chat",
        concurrency_limit=1,
    )


def talk_with(speakers: Mapping[str, Speaker], chats: bool, sampling: Sampling, system: str | None) -> Talk:
    """What Gradio calls with a message, the messages before it and the model: the answer so far, again and again."""
    first, lock = next(iter(speakers)), Lock()

    def talk(message: str, history: Sequence[Mapping[str, Any]], model: str = first) -> Iterator[str]:
        speaker = speakers[model]
        said: Any = message
        if chats:
            before = [{"role": "system", "content": system}] if system else []
            said = [*before, *map(_plain, history), {"role": "user", "content": message}]
        text = ""
        with lock:
            try:
                for item in answering(speaker, prompt_of(speaker, said), sampling, Event()):
                    if not isinstance(item, Answer):
                        text += item
                        yield text
            except UserError as error:
                raise gradio.Error(str(error), print_exception=False) from None

    return talk


def _plain(message: Mapping[str, Any]) -> dict[str, str]:
    """A message of Gradio, whose content may be a list of parts."""
    content = message["content"]
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return {"role": message["role"], "content": content}
