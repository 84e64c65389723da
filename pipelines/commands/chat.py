"""A conversation in the terminal: what a person types becomes messages, commands, or the end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

HELP = """\
/help          this
/reset         forget what was said; the system prompt stays
/system TEXT   say TEXT to the model before everything (without TEXT: show it); /system - takes it away
//...          a message that begins with /
A line that ends with \\ goes on in the next; \"\"\" begins and ends a text of several lines.
Ctrl-C stops an answer, Ctrl-D leaves."""
QUOTES = '"""'
Message = dict[str, str]


@dataclass
class Conversation:
    """What was said, as each of the models that answer heard it: they share all but their own answers.

    `templated`: whether messages are rendered; else each text is gone on from by itself.
    """

    models: Sequence[str]
    templated: bool = True
    system: str | None = None
    heard: dict[str, list[Message]] = field(default_factory=dict)

    def messages(self, model: str) -> list[Message]:
        """Of one model, the system prompt first."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*first, *self.heard.get(model, [])]

    def add(self, model: str, role: str, content: str) -> None:
        """A message behind the others."""
        self.heard.setdefault(model, []).append({"role": role, "content": content})

    def forget_last(self, model: str) -> None:
        """Take the last message back."""
        self.heard[model].pop()


def talk(
    conversation: Conversation,
    read: Callable[[str], str],
    show: Callable[[str], None],
    answer: Callable[[str, list[Message] | str], str | None],
) -> None:
    """Read, answer, and so on, until the end of the input (EOFError of `read`).

    `answer` shows what a model says to messages or a text, and returns it; None where it could not answer.
    """
    while True:
        try:
            text = read_text(read)
        except EOFError:
            return
        except KeyboardInterrupt:
            show("\nCtrl-D leaves")
            continue
        if not text.strip():
            continue
        if text.startswith("/") and not text.startswith("//"):
            show(obey(text, conversation))
            continue
        text = text[1:] if text.startswith("//") else text
        for model in conversation.models:
            if not conversation.templated:
                answer(model, text)
                continue
            conversation.add(model, "user", text)
            said = answer(model, conversation.messages(model))
            if said is None:
                conversation.forget_last(model)
            else:
                conversation.add(model, "assistant", said)


def read_text(read: Callable[[str], str]) -> str:
    """One message of one line or several. Raises EOFError at the end."""
    line = read("> ")
    if line.strip().startswith(QUOTES):
        lines = [line.strip().removeprefix(QUOTES)]
        while not lines[-1].rstrip().endswith(QUOTES):
            lines.append(read(". "))
        return "\n".join(lines).rstrip().removesuffix(QUOTES).strip("\n")
    while line.endswith("\\"):
        line = f"{line[:-1]}\n{read('. ')}"
    return line


def obey(text: str, conversation: Conversation) -> str:
    """Do what a command says; what to show."""
    command, _, rest = text.partition(" ")
    if command == "/help":
        return HELP
    if command == "/reset":
        conversation.heard.clear()
        return "forgotten"
    if command == "/system":
        if not conversation.templated:
            return "without a chat template there is no system prompt"
        if rest.strip():
            conversation.system = None if rest.strip() == "-" else rest.strip()
        return "no system prompt" if conversation.system is None else f"system: {conversation.system}"
    return f"there is no {command}; /help lists the commands, and //{text[1:]} would be said to the model"
