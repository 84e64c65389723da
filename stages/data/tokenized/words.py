"""What a tokenized stage needs of its tokenizer: what makes tokens, and the format that reads rows with it."""

from dataclasses import dataclass
from importlib import import_module

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.conversations.chat_template import choose_template
from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.conversations.example import Format, Kit, RenderTokens
from tunemill.stages.data.conversations.loaded import LoadedTokenizer, load_to_encode
from tunemill.stages.data.conversations.markers import advice
from tunemill.stages.data.conversations.template_body import ASKED, renderer, seen
from tunemill.stages.data.conversations.today import with_clock
from tunemill.stages.data.conversations.tracing import tracer
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.format_table import maker
from tunemill.stages.report import Report


@dataclass(frozen=True)
class Words:
    """The tokenizer, what makes tokens of texts with it, and of conversations where mistral-common does."""

    loaded: LoadedTokenizer
    encoder: Encoder
    render_tokens: RenderTokens | None


def words_of(tokenizer: Tokenizer) -> Words:
    """The tokenizer of an artifact, with mistral-common's rules where it holds a tekken.json."""
    loaded, reference = load_to_encode(tokenizer, plain=tokenizer.is_mistral)
    encoder = Encoder(reference, loaded.eos_token_id)
    if not tokenizer.is_mistral:
        return Words(loaded, encoder, None)
    # An extra, which only such tokenizers need.
    from tunemill.stages.data.conversations.mistral_body import MistralRules

    return Words(loaded, encoder, MistralRules(tokenizer.tekken))


def make_format(config: TokenizedConfig, words: Words, report: Report, *, traced: bool = True) -> Format:
    """`traced`: a template is run once for many rows, as far as that is known to do.

    Raises SettingError where the config does not fit the tokenizer.
    """
    loaded = words.loaded
    template = None
    if words.render_tokens is None:
        template = choose_template(config.chat_template, config.chat_template_jinja, loaded.chat_template)
    variables = with_clock(config.chat_template_kwargs, config.today, template, report)
    if config.chat_template is not None and template is not None:
        for line in advice(loaded, template, f"the chat template {config.chat_template}"):
            report.log(line)
    kit = Kit(
        template=template,
        render=renderer(loaded, template, variables),
        render_opened=renderer(loaded, template, {**variables, ASKED: True}),
        eos_token=loaded.eos_token,
        ids_of=words.encoder.ids_of,
        tokenizer=loaded,
        render_tokens=words.render_tokens,
        offsets_of=words.encoder.offsets_of,
        trace=tracer(template, seen(loaded, variables), config.template_thinking_key)
        if traced and template is not None
        else None,
    )
    module, name = maker(config.type).split(":")
    made = getattr(import_module(module), name)(config, kit)
    assert isinstance(made, Format)
    return made
