"""Proof of the words: the file's tokenizer, template, BOS and stop tokens beside those of the model."""

import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tunemill.stages.errors import UserError
from tunemill.stages.models.exported_gguf.embedded_body import Embedded
from tunemill.stages.models.exported_gguf.recognised_body import sample_texts
from tunemill.stages.models.exported_gguf.spoken_body import CONVERSATIONS, ending_of_answers, rendered
from tunemill.stages.models.exported_gguf.vocabulary_body import composes
from tunemill.stages.models.generation_body import GENERATION_FILE
from tunemill.stages.models.gguf_reading_body import GgufFile
from tunemill.stages.models.tokenizer_ids_body import FIXED_TEXT

# So many tokens are looked at beside others, and so many texts made of them.
SAMPLED = 100
TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class Prompt:
    """A text as it is given to the model, and its tokens as training has them."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class WordProof:
    """The prompts of conversations, in the words of both; how many texts were compared; stop tokens."""

    prompts: tuple[Prompt, ...]
    texts: int
    ends: tuple[int, ...]


def check_words(words: PreTrainedTokenizerBase, folder: Path, file: GgufFile) -> WordProof:
    """Raises UserError where a prompt would have other tokens in llama.cpp than it has in training, or never end."""
    embedded = Embedded(file)
    template = file.says.get(TEMPLATE)
    if words.chat_template and not template:
        raise _wrong("the chat template is not in the file: llama.cpp would take another one")
    prompts = []
    for messages in CONVERSATIONS:
        text = rendered(words, messages, add_generation_prompt=True)
        if text is None:
            continue
        there = rendered(words, messages, chat_template=template, add_generation_prompt=True)
        prompts.append(_check_prompt(words, embedded, text, there))
    composed = composes(words)
    texts = [FIXED_TEXT, *sample_texts(words, SAMPLED)]
    for text in texts:
        plain = unicodedata.normalize("NFC", text) if composed else text
        _check_ids(
            tuple(words.encode(plain, add_special_tokens=False)),
            embedded.encode(plain, adds=False),
            words,
            plain,
        )
    _check_ends(words, folder, embedded)
    return WordProof(tuple(prompts), len(texts) + len(prompts), tuple(sorted(embedded.ends())))


def _check_prompt(words: PreTrainedTokenizerBase, embedded: Embedded, text: str, there: str | None) -> Prompt:
    if there != text:
        raise _wrong(f"the file's chat template makes {there!r} of a conversation, and the model's {text!r}")
    ids = tuple(words.encode(text, add_special_tokens=False))
    bos = words.bos_token
    # llama.cpp takes the BOS of a template away where it adds one itself.
    bare = text.removeprefix(bos) if bos and embedded.get("add_bos_token") else text
    found = embedded.encode(bare, adds=True)
    if embedded.get("add_eos_token"):
        found = found[:-1]
    number = words.bos_token_id
    times = (ids.count(number), found.count(embedded.get("bos_token_id")))
    if number is not None and times[0] != times[1]:
        raise _wrong(
            f"BOS ({bos}) stands {times[1]} times in a prompt of llama.cpp, and {times[0]} times in training"
        )
    if number is not None and times[0] > 1:
        raise _wrong(f"BOS ({bos}) stands {times[0]} times in a prompt: the chat template doubles it")
    _check_ids(ids, found, words, text)
    return Prompt(text, ids)


def _check_ids(wanted: tuple[int, ...], found: list[int], words: PreTrainedTokenizerBase, text: str) -> None:
    if list(wanted) == found:
        return
    pairs = enumerate(zip(wanted, found, strict=False))
    at = next((at for at, (one, other) in pairs if one != other), min(len(wanted), len(found)))
    shown = [words.convert_ids_to_tokens(ids[at : at + 3]) for ids in (list(wanted), found)]
    raise _wrong(f"token {at} of {text[:60]!r}: {shown[1]} in llama.cpp, and {shown[0]} in training")


def _check_ends(words: PreTrainedTokenizerBase, folder: Path, embedded: Embedded) -> None:
    """The stop tokens that the model's own files name, and what closes an answer, are those of the file."""
    wanted = {words.eos_token_id, ending_of_answers(words)}
    name = GENERATION_FILE if (folder / GENERATION_FILE).is_file() else "config.json"
    named = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
    wanted |= set(named if isinstance(named, list) else [named])
    if lost := sorted(wanted - {None} - embedded.ends()):
        tokens = ", ".join(str(words.convert_ids_to_tokens(id_)) for id_ in lost)
        raise _wrong(
            f"{tokens} ends an answer, and is no stop token of the file: llama.cpp would go on writing"
        )


def _wrong(what: str) -> UserError:
    return UserError(f"exported gguf: {what}. Take gguf out of export, and report this.")
