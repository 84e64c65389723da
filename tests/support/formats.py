"""Rows to tokens by one format, without the stages around it."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.conversations.example import Format, Kit
from tunemill.stages.data.conversations.loaded import of_transformers
from tunemill.stages.data.conversations.samples import Sample
from tunemill.stages.data.conversations.template_body import ASKED, renderer, seen
from tunemill.stages.data.conversations.tracing import tracer
from tunemill.stages.data.engines.encoded import Engine
from tunemill.stages.data.engines.proof import proven
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.format_table import maker

TOKENIZERS = Path(__file__).parents[1] / "golden" / "tokenizers"


@cache
def fast_engine(tokenizer: str) -> tuple[Engine | None, str | None]:
    """The engine that is proven for one of the golden tokenizers, or why there is none."""
    loaded = AutoTokenizer.from_pretrained(TOKENIZERS / tokenizer, local_files_only=True)
    return proven(Reference(loaded.backend_tokenizer), [])


class FormatBench:
    """A tokenizer of the golden ones, and what formats make of rows with it."""

    def __init__(self, tokenizer: str) -> None:
        self.name = tokenizer
        self.tokenizer: Any = AutoTokenizer.from_pretrained(TOKENIZERS / tokenizer, local_files_only=True)
        self.loaded = of_transformers(self.tokenizer, TOKENIZERS / tokenizer)
        self.encoder = Encoder(Reference(self.tokenizer.backend_tokenizer), self.tokenizer.eos_token_id)

    def format(self, **settings: Any) -> Format:
        """The format that the settings of one dataset ask for."""
        config = TokenizedConfig(**settings)
        template = self.tokenizer.chat_template
        kit = Kit(
            template=template,
            render=renderer(self.loaded, template, {}),
            render_opened=renderer(self.loaded, template, {ASKED: True}),
            eos_token=self.tokenizer.eos_token,
            ids_of=self.encoder.ids_of,
            tokenizer=self.loaded,
            trace=template and tracer(template, seen(self.loaded, {}), config.template_thinking_key),
        )
        module, name = maker(config.type).split(":")
        made = getattr(import_module(module), name)(config, kit)
        assert isinstance(made, Format)
        return made

    def samples(self, rows: list[Any], **settings: Any) -> list[Sample]:
        """What the rows become."""
        chosen = self.format(**settings)
        examples = [chosen.read(row) for row in rows]
        samples = list(self.encoder.encode(examples, chosen.ends))
        engine, _ = fast_engine(self.name)
        if engine is not None:
            assert samples == list(self.encoder.using(engine).encode(examples, chosen.ends))
        return samples

    def ids(self, text: str, *, bos: bool = False) -> list[int]:
        """Token ids by the tokenizer of `transformers` itself."""
        return list(self.tokenizer(text, add_special_tokens=bos)["input_ids"])

    def trained(self, sample: Sample) -> list[int]:
        """The ids that are trained on."""
        return [label for label in sample.labels if label != -100]
