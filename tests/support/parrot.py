"""A real model of which it is known what it says: each token is followed by the one that it was given."""

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.tiny_model import VOCABULARY, make_model, tiny_config


def make_parrot(folder: Path, follows: Mapping[int, int], added: list[str] | None = None) -> Path:
    """Write a Llama that says `follows[token]` after a token, whatever stands before, and a tokenizer.

    `added` are special tokens that the tokenizer gets.
    """
    sizes = {"hidden_size": VOCABULARY, "intermediate_size": 8, "num_hidden_layers": 1}
    model = AutoModelForCausalLM.from_config(tiny_config(**sizes))
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            model.model.layers[0].get_submodule(name).weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(VOCABULARY))
        model.lm_head.weight.zero_()
        for token, following in follows.items():
            model.lm_head.weight[following, token] = 1.0
    make_model(folder, num_hidden_layers=1)
    model.save_pretrained(folder)
    if added:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.add_special_tokens(added)
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def chain(prompt_end: int, *tokens: int) -> dict[int, int]:
    """What follows what, for a model that says these tokens behind a prompt; then the last one for ever."""
    said = [prompt_end, *tokens]
    assert len(set(said[:-1])) == len(said) - 1, "a token is followed by two"
    return {**dict(zip(said, [*tokens, tokens[-1]], strict=True))}


def ids_of(folder: Path, text: str) -> list[int]:
    """The ids of a text in the tokenizer of `folder`."""
    ids: list[int] = AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False)
    return ids
