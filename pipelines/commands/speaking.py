"""Loaded models of the command line, by their names, and what they say as text on the terminal."""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tunemill.pipelines.commands.chosen_model import ChosenModel, model_arguments
from tunemill.pipelines.config.spans import escaped
from tunemill.stages.errors import UserError
from tunemill.stages.models.chat.sampling import Answer, Sampling

BODY = "tunemill.stages.models.chat.speaker_body"
Said = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Speakers:
    """The models, how they answer, and whether texts go to them as they are (`plain`)."""

    loaded: Mapping[str, Any]
    sampling: Sampling
    plain: bool

    @staticmethod
    def load(chosen: Sequence[ChosenModel], sampling: Sampling, *, plain: bool) -> "Speakers":
        """Load them all. Two of one name are told apart by a number."""
        loaded: dict[str, Any] = {}
        with quietly():
            body = import_module(BODY)
            for one in chosen:
                name = one.name if one.name not in loaded else f"{one.name} (2)"
                loaded[name] = body.load_speaker(**model_arguments(one))
        return Speakers(loaded, sampling, plain)

    @property
    def names(self) -> list[str]:
        """The models, in the order of their answers."""
        return list(self.loaded)

    def chats(self, name: str) -> bool:
        """Whether what is said to the model is rendered by its template."""
        return not self.plain and bool(self.loaded[name].chats)

    @property
    def templated(self) -> bool:
        """Whether all of them have a template for what is said."""
        return all(map(self.chats, self.loaded))

    def prompt_of(self, name: str, said: Said, system: str | None = None) -> Said:
        """Messages with the system prompt before them, a text as that of a user where the model has a template."""
        if isinstance(said, str) and not self.chats(name):
            return said
        first = [] if system is None else [{"role": "system", "content": system}]
        return [*first, *([{"role": "user", "content": said}] if isinstance(said, str) else said)]

    def answer(self, name: str, said: Said, on_text: Any = None) -> Answer:
        """What a model says to messages or a text."""
        body, speaker = import_module(BODY), self.loaded[name]
        found: Answer = body.answer(
            speaker, body.prompt_of(speaker, said), self.sampling, on_text or (lambda _: None)
        )
        return found

    def say(self, name: str, said: Said, *, labelled: bool) -> Answer:
        """Show an answer while it is generated."""
        try:
            if labelled:
                print(f"{name}: ", end="", flush=True)
            found = self.answer(name, said, show_piece)
        except KeyboardInterrupt:
            # Before its first token.
            found = Answer("", 0, 0, "interrupted")
        note = {"length": "cut: --max-new-tokens", "interrupted": "stopped"}.get(found.finish_reason)
        print()
        if note:
            print(f"[{note}]", file=sys.stderr)
        return found

    def reply(self, name: str, said: Said, *, labelled: bool) -> str | None:
        """The same in a conversation, which goes on where the model could not answer."""
        try:
            return self.say(name, said, labelled=labelled).text
        except UserError as error:
            print(f"\n{error}", file=sys.stderr)
            return None


@contextmanager
def quietly() -> Iterator[None]:
    """Libraries tell of kernels that they could not load and that nobody needs: errors alone are shown."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def show_piece(text: str) -> None:
    """A piece of an answer; on a terminal nothing of it is obeyed."""
    sys.stdout.write(escaped(text, keep="\n\t") if sys.stdout.isatty() else text)
    sys.stdout.flush()
