"""Rows to tokens by one format, without the stages around it."""

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
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.format_table import maker

TOKENIZERS = Path(__file__).parents[1] / "golden" / "tokenizers"


class FormatBench:
    """A tokenizer of the golden ones, and what formats make of rows with it."""

    def __init__(self, tokenizer: str) -> None:
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
        return list(self.encoder.encode([chosen.read(row) for row in rows], chosen.ends))

    def ids(self, text: str, *, bos: bool = False) -> list[int]:
        """Token ids by the tokenizer of `transformers` itself."""
        return list(self.tokenizer(text, add_special_tokens=bos)["input_ids"])

    def trained(self, sample: Sample) -> list[int]:
        """The ids that are trained on."""
        return [label for label in sample.labels if label != -100]
