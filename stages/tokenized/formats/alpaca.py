"""`type: alpaca`: instruction, optional input, output, in the wording of the Alpaca dataset."""

from tunemill.stages.tokenized.config import TokenizedConfig
from tunemill.stages.tokenized.example import Example, Format, Kit, RowValue, Segment, text_field

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


def alpaca(config: TokenizedConfig, _kit: Kit) -> Format:
    """Rows with `instruction`, `output` and perhaps `input`, in the wording of Stanford Alpaca."""

    def read(row: RowValue) -> Example:
        instruction = text_field(row, "instruction", required=True)
        context = text_field(row, "input", required=False)
        output = text_field(row, "output", required=True)
        wording = WITH_INPUT if context else WITHOUT_INPUT
        prompt = wording.format(instruction=instruction, input=context)
        return (
            Segment("prompt", prompt, config.train_on_inputs, bos=True),
            Segment("response", output, trained=True, eos=True),
        )

    return Format(read)
