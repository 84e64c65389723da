"""Write the quickstart's base model without weights: tokenizer, chat template, configuration.

`python examples/quickstart/make_tokenizer.py`, after make_data.py; rerunning gives byte-identical files.
Needs `tokenizers` and `transformers`, not torch.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

HERE = Path(__file__).parent
MODEL = HERE / "model"
TRAINING_FILES = ("dates_words.jsonl", "dates_numeric.jsonl", "durations.jsonl")
PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 512
CONTEXT = 512
MAX_NEW_TOKENS = 24
CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def training_texts() -> list[str]:
    """Every message of the training files as the template renders it, without its special tokens."""
    texts = ["system\n"]
    for name in TRAINING_FILES:
        for line in (HERE / "data" / name).read_text(encoding="utf-8").splitlines():
            texts += [f"{message['role']}\n{message['content']}" for message in json.loads(line)["messages"]]
    return texts


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE; a digit is always a token by itself, and so is a newline."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|\n| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\s"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def make_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """A small Llama; its weights are drawn from a seed by the pipeline."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        initializer_range=0.02,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def write_json(name: str, settings: dict[str, Any]) -> None:
    """Write settings without the library version, which would change the file with every release."""
    settings.pop("transformers_version", None)
    (MODEL / name).write_text(
        json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n"
    )


def main() -> None:
    """Make every file of the quickstart's model folder."""
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(MODEL)
    generation = GenerationConfig(
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    write_json("config.json", make_config(tokenizer).to_diff_dict())
    write_json("generation_config.json", generation.to_diff_dict())
    print(f"{MODEL.name}: {len(tokenizer)} tokens in the vocabulary")


if __name__ == "__main__":
    main()
