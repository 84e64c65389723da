"""GGUF files with something changed, and tiny models of the families that are exported, with tokenizers of theirs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models import gemma, gemma2, gemma3, mistral, phi3, qwen2, qwen3, smollm3

from support.tiny_model import VOCABULARY, Heard, make_model, tiny_config, workspace
from support.tiny_tokenizer import CHATML, CORPUS, make_tokenizer
from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.models.exported_gguf.body import export
from tunemill.stages.models.exported_gguf.config import ExportedGgufConfig

SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.1,
    "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": tiny_config(**SIZES),
    "llama3": tiny_config(
        **SIZES,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "mistral": mistral.MistralConfig(**SIZES, sliding_window=None, head_dim=32),
    "qwen2": qwen2.Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": qwen3.Qwen3Config(**SIZES, head_dim=32),
    "gemma": gemma.GemmaConfig(**SIZES, head_dim=32),
    "gemma2": gemma2.Gemma2Config(**SIZES, head_dim=32, query_pre_attn_scalar=32, sliding_window=64),
    "gemma3": gemma3.Gemma3TextConfig(
        **{**SIZES, "num_hidden_layers": 7},
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=64,
        final_logit_softcapping=5.0,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 50000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
        },
    ),
    # What transformers reads by itself.
    "gemma3_usual": gemma3.Gemma3TextConfig(**{**SIZES, "num_hidden_layers": 6}, sliding_window=64),
    "phi3": phi3.Phi3Config(**SIZES),
    "smollm3": smollm3.SmolLM3Config(**SIZES),
}
PIECES = ("gemma", "gemma2", "gemma3", "gemma3_usual", "phi3", "mistral")
TURNS = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_pieces(folder: Path, *, prefix: bool) -> Path:
    """A tokenizer of pieces such as SentencePiece makes, with BOS in front; `prefix`: a space before each text."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ["<pad>", "<s>", "<|im_end|>", "<unk>", "<|im_start|>"]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    learned = json.loads(trained.to_str())["model"]
    pieces = sorted(
        (text for text in trained.get_vocab() if text not in special), key=trained.get_vocab().__getitem__
    )
    made = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {text: id_ for id_, text in enumerate(made)}
    pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in learned["merges"]]
    ranks = {"".join(pair): rank for rank, pair in enumerate(pairs)}
    merges = [
        (text[:cut], text[cut:])
        for text in sorted(ranks, key=ranks.__getitem__)
        for cut in range(1, len(text))
        if text[:cut] in vocabulary and text[cut:] in vocabulary
    ]
    unknown = special[3]
    model = models.BPE(vocabulary, merges, unk_token=unknown, byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    spaces = [normalizers.Replace(" ", "\u2581")]
    tokenizer.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend("\u2581")] if prefix else []), *spaces]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<pad>", "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TURNS, encoding="utf-8")
    return folder


def make_family(folder: Path, name: str, *, dtype: torch.dtype = torch.float32, **sizes: int) -> Path:
    """A tiny model of a family, with a tokenizer as such models have."""
    torch.manual_seed(0)
    config = type(CONFIGS[name]).from_dict({**CONFIGS[name].to_dict(), **sizes})
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms that are all ones would hide a norm that is taken for another.
            if parameter.ndim == 1:
                parameter.add_(torch.rand_like(parameter) / 2)
    if name in PIECES:
        model.generation_config.bos_token_id = model.config.bos_token_id = 1
    model.save_pretrained(folder)
    if name in PIECES:
        make_pieces(folder, prefix=name in ("mistral", "phi3"))
    else:
        make_tokenizer(folder)
    return folder


def make_model_with_bos(folder: Path) -> Path:
    """A tiny Llama whose template begins with BOS."""
    make_model(folder, num_key_value_heads=1)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "bos_token": "<|endoftext|>"}))
    (folder / "chat_template.jinja").write_text("{{ bos_token }}" + CHATML)
    return folder


def exported(folder: Path, model: Path, kind: str, adapter: Path | None = None) -> tuple[Path, Heard]:
    """The file that the stage makes, and what it said."""
    out, heard = workspace(folder), Heard()
    config = ExportedGgufConfig(type=kind, of="model" if adapter is None else "adapter")
    export(config, Model(model), None if adapter is None else Adapter(adapter), out, heard.report)
    return next(out.data.glob("*.gguf")), heard


def rewritten(
    source: Path,
    target: Path,
    *,
    says: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Any] | None = None,
) -> Path:
    """A copy of a file with other values (None: without) and other bytes of tensors (None: without)."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    changed, other = dict(says or {}), dict(tensors or {})
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = changed.get(name, field.contents()) if name in changed else field.contents()
        if value is not None:
            writer.add_key_value(
                name, value, field.types[0], field.types[-1] if len(field.types) > 1 else None
            )
    for tensor in reader.tensors:
        data = other.get(tensor.name, tensor.data) if tensor.name in other else tensor.data
        if data is not None:
            writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
