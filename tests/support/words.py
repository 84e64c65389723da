"""Chat templates with a tokenizer whose tokens are words, so that masks can be written down by hand."""

from types import SimpleNamespace
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.conversations.example import Conversation, Kit
from tunemill.stages.data.conversations.samples import Sample
from tunemill.stages.data.conversations.template_body import ASKED, renderer, seen
from tunemill.stages.data.conversations.tracing import tracer
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.formats.chat_template import chat_template

# Every turn: its role in brackets, its text, and what ends it.
TURNS = "{% for m in messages %}<{{ m.role }}> {{ m.content }} </s> {% endfor %}"
EOS = "</s>"


def read_words(row: dict[str, Any], template: str = TURNS, **settings: Any) -> tuple[Conversation, Sample]:
    """What a row becomes, as text and as tokens that are its words."""
    vocabulary = {"<unk>": 0, EOS: 1}

    def ids_of(text: str) -> list[int]:
        return [vocabulary.setdefault(word, len(vocabulary)) for word in text.split()]

    words = SimpleNamespace(special_tokens_map={"eos_token": EOS})
    config = TokenizedConfig(type="chat_template", **settings)
    kit = Kit(
        template=template,
        render=renderer(words, template, {}),
        render_opened=renderer(words, template, {ASKED: True}),
        eos_token=EOS,
        ids_of=ids_of,
        tokenizer=None,
        trace=tracer(template, seen(words, {}), config.template_thinking_key),
    )
    made = chat_template(config, kit)
    conversation = made.read(row)
    assert isinstance(conversation, Conversation)
    ids_of(conversation.text)
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = WhitespaceSplit()
    (sample,) = Encoder(Reference(tokenizer), vocabulary[EOS]).encode([conversation], made.ends)
    return conversation, sample


def masked(row: dict[str, Any], template: str = TURNS, **settings: Any) -> str:
    """The row's words, a `+` before each that is trained on."""
    conversation, sample = read_words(row, template, **settings)
    words = conversation.text.split()
    assert len(words) == len(sample.ids) == len(sample.labels)
    assert all(label in (-100, id_) for id_, label in zip(sample.ids, sample.labels, strict=True))
    return " ".join(
        word if label == -100 else f"+{word}" for word, label in zip(words, sample.labels, strict=True)
    )


def by_role(row: dict[str, Any], template: str = TURNS, **settings: Any) -> list[tuple[str, str]]:
    """The row's words, cut where the role changes."""
    conversation, sample = read_words(row, template, **settings)
    words = conversation.text.split()
    return [(run.role, " ".join(words[run.start : run.end])) for run in sample.runs]


def talk(*turns: Any) -> dict[str, Any]:
    """A row: of a text such as `user: Hi`, or of messages with more than that."""
    messages = []
    for turn in turns:
        role, _, content = turn.partition(":") if isinstance(turn, str) else ("", "", "")
        messages.append(
            {"role": role, "content": content.removeprefix(" ")} if isinstance(turn, str) else turn
        )
    return {"messages": messages}
