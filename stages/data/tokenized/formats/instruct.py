"""The instruction formats: `alpaca` and its many relatives."""

from tunemill.stages.data.conversations.example import Example, Format, Kit, RowValue, Segment
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.formats.recipes import RECIPES


def instruct(config: TokenizedConfig, _kit: Kit) -> Format:
    """Rows of an instruction and its answer, worded as `type` says."""
    assert isinstance(config.type, str)
    recipe = RECIPES[config.type if config.conversation is None else f"alpaca:{config.conversation}"]

    def read(row: RowValue) -> Example:
        fields = recipe.read(row)
        prompt = recipe.prompt(fields)
        if recipe.one_text:
            masked = "" if config.train_on_inputs else prompt
            text = prompt + fields.output
            return (Segment("response", text, trained=True, bos=True, eos=recipe.eos_tokens, masked=masked),)
        return (
            Segment("prompt", prompt, config.train_on_inputs, bos=True),
            Segment("response", fields.output, trained=True, eos=recipe.eos_tokens),
        )

    return Format(read)
