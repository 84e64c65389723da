"""The tokenizer of a model in the words of a GGUF file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from transformers import GenerationConfig, PreTrainedTokenizerBase

from tunemill.stages.errors import UserError
from tunemill.stages.models.exported_gguf.recognised_body import Recognised, recognise
from tunemill.stages.models.exported_gguf.splits import SPACE, UNSTRIPPED
from tunemill.stages.models.exported_gguf.spoken_body import ending_of_answers, rendered_prompts
from tunemill.stages.models.generation_body import GENERATION_FILE

Kind = gguf.TokenType
# llama.cpp takes three tokens as ends of an answer: of a text, of a turn, of a message.
ENDS = ("eos", "eot", "eom")


@dataclass(frozen=True)
class Vocabulary:
    """`kinds` and `scores` go with `tokens`. `ends`: the tokens that an answer ends with, the usual one first.
    `strips`: white space behind special tokens is dropped.
    """

    model: str
    split: Recognised
    tokens: Sequence[str]
    kinds: Sequence[int]
    scores: Sequence[float] | None
    merges: Sequence[str] | None
    special: Mapping[str, int]
    ends: Sequence[int]
    adds_bos: bool
    adds_eos: bool
    adds_space: bool
    strips: bool
    template: str | None


def read_vocabulary(words: PreTrainedTokenizerBase, folder: Path, size: int) -> Vocabulary:
    """What AutoTokenizer makes of the folder, for a model with `size` rows of embeddings.

    Raises UserError for a tokenizer that llama.cpp does not know.
    """
    backend = getattr(words, "backend_tokenizer", None)
    described = {} if backend is None else json.loads(backend.to_str())
    model = described.get("model", {})
    if model.get("type") != "BPE":
        raise refusal(f"it is a {model.get('type') or type(words).__name__}, and no byte pair encoding")
    is_pieces = bool(model.get("byte_fallback"))
    tokens, kinds = _tokens(model["vocab"], described["added_tokens"], words.unk_token_id, size, is_pieces)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    adds_bos, adds_eos = _added(words)
    prompts = rendered_prompts(words)
    if prompts and words.bos_token:
        # The rows that were trained on are as the template has them, and llama.cpp adds a token in front of all.
        adds_bos = adds_bos and all(prompt.startswith(words.bos_token) for prompt in prompts)
    ids = {"bos": words.bos_token_id, "unk": words.unk_token_id, "pad": words.pad_token_id}
    return Vocabulary(
        model="llama" if is_pieces else "gpt2",
        split=Recognised("default", "pieces") if is_pieces else recognise(words, described),
        tokens=tokens,
        kinds=kinds,
        scores=_scores(described, tokens, kinds) if is_pieces else None,
        merges=None if is_pieces else merges,
        special={name: found for name, found in ids.items() if found is not None},
        ends=_ends(words, folder),
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        adds_space=is_pieces and _prepends(described),
        strips=_strips(described["added_tokens"]),
        template=_template(words),
    )


def composes(words: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer brings texts into NFC first."""
    described = json.loads(words.backend_tokenizer.to_str())
    return any(step["type"] == "NFC" for step in _steps(described["normalizer"], "normalizers"))


def refusal(reason: str) -> UserError:
    """The error for a tokenizer that llama.cpp would not read as it is."""
    return UserError(
        f"pipeline.export: llama.cpp does not know this tokenizer: {reason}. Take gguf out of export."
    )


def _tokens(
    vocab: Mapping[str, int],
    added: Sequence[Mapping[str, Any]],
    unknown: int | None,
    size: int,
    is_pieces: bool,
) -> tuple[list[str], list[int]]:
    """Text and kind of each id; rows of the embeddings without a token get one that no text has."""
    found: dict[int, tuple[str, int]] = {id_: (text, Kind.NORMAL) for text, id_ in vocab.items()}
    if is_pieces:
        for byte in range(256):
            text = f"<0x{byte:02X}>"
            if text not in vocab:
                raise refusal(f"it has no token {text}")
            found[vocab[text]] = (text, Kind.BYTE)
    for token in added:
        if token.get("lstrip") or token.get("single_word"):
            raise refusal(f"{token['content']} takes white space before it along, or must stand alone")
        kind = Kind.CONTROL if token["special"] else Kind.USER_DEFINED
        found[token["id"]] = (token["content"], kind)
    if unknown is not None and is_pieces:
        found[unknown] = (found[unknown][0], Kind.UNKNOWN)
    if max(found) >= size:
        raise refusal(f"its token {max(found)} has no row in the embeddings, which have {size}")
    empty = {id_: (f"[PAD{id_}]", Kind.UNUSED) for id_ in range(size) if id_ not in found}
    whole = {**found, **empty}
    texts = [whole[id_][0] for id_ in range(size)]
    if len(set(texts)) < size:
        raise refusal("two of its tokens have the same text")
    return texts, [int(whole[id_][1]) for id_ in range(size)]


def _scores(described: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int]) -> list[float]:
    """Which of two neighbours are joined first: those that make the piece with the highest score.

    Raises UserError where merges do not go by the piece that they make, as SentencePiece's do.
    """
    pairs = [
        tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in described["model"]["merges"]
    ]
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(pairs):
        ranks.setdefault(left + right, rank)
    known = set(pairs)
    there = {text for text, kind in zip(tokens, kinds, strict=True) if kind == Kind.NORMAL}
    for piece in ranks:
        for cut in range(1, len(piece)):
            pair = (piece[:cut], piece[cut:])
            if pair[0] in there and pair[1] in there and pair not in known:
                raise refusal(f"{pair[0]!r} and {pair[1]!r} make a token of it, and are not merged")
    last = len(pairs)
    return [
        float(-ranks.get(text, last)) if kind == Kind.NORMAL else 0.0
        for text, kind in zip(tokens, kinds, strict=True)
    ]


def _prepends(described: Mapping[str, Any]) -> bool:
    """Whether a space is put before a text. Raises UserError for what is done to texts that llama.cpp does not do."""
    adds = False
    for step in _steps(described.get("normalizer"), "normalizers"):
        if step["type"] == "Prepend" and step["prepend"] == SPACE:
            adds = True
        elif not (
            step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == SPACE
        ):
            raise refusal(f"it changes texts by {step['type']}")
    for step in _steps(described.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] == "Metaspace" and step["replacement"] == SPACE and not step.get("split", True):
            adds = adds or step["prepend_scheme"] != "never"
        elif not (step["type"] == "Split" and step["pattern"] == {"String": " "}):
            raise refusal(f"it cuts texts by {step['type']}")
    return adds


def _steps(described: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    if described is None:
        return []
    return list(described[key]) if described["type"] == "Sequence" else [described]


def _strips(added: Sequence[Mapping[str, Any]]) -> bool:
    """Whether special tokens take the white space behind them along, as Phi-3's do: all of them but three."""
    found = {token["content"] for token in added if token.get("rstrip")}
    if found and found != {token["content"] for token in added} - UNSTRIPPED:
        raise refusal(f"{', '.join(sorted(found)[:3])} take white space behind them along, and others do not")
    return bool(found)


def _added(words: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """Whether BOS and EOS are put around a text."""
    bare, full = (words.encode("a", add_special_tokens=adds) for adds in (False, True))
    bos, eos = [words.bos_token_id], [words.eos_token_id]
    for before in (False, True):
        for after in (False, True):
            if full == (bos if before else []) + bare + (eos if after else []):
                return before, after
    raise refusal("it puts other tokens around a text than BOS and EOS")


def _ends(words: PreTrainedTokenizerBase, folder: Path) -> list[int]:
    """What ends an answer: the tokenizer's token, those of the model, and what the template closes it with."""
    found = [] if words.eos_token_id is None else [int(words.eos_token_id)]
    if (folder / GENERATION_FILE).is_file():
        named = GenerationConfig.from_pretrained(folder).eos_token_id
        found += named if isinstance(named, list) else [] if named is None else [named]
    closing = ending_of_answers(words)
    found += [] if closing is None else [closing]
    ends = list(dict.fromkeys(found))
    if not ends:
        raise refusal("it has no token that ends an answer. Set special_tokens: {eos_token: ...}")
    if len(ends) > len(ENDS):
        raise refusal(f"answers end with {len(ends)} tokens, and a file has room for {len(ENDS)}")
    return ends


def _template(words: PreTrainedTokenizerBase) -> str | None:
    found = words.chat_template
    return found.get("default") if isinstance(found, dict) else found


def add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Add the tokenizer to the head of a file."""
    # By this name llama.cpp knows that white space is dropped.
    writer.add_name("phi3" if vocabulary.strips else "model")
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.split.name)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    ids = {**dict(zip(ENDS, vocabulary.ends, strict=False)), **vocabulary.special}
    for name, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("eot", writer.add_eot_token_id),
        ("eom", writer.add_eom_token_id),
        ("unk", writer.add_unk_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        if name in ids:
            add(ids[name])
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    writer.add_add_space_prefix(vocabulary.adds_space)
    if vocabulary.template is not None:
        writer.add_chat_template(vocabulary.template)
