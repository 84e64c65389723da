"""What the model writes while it is trained: a monitor, whose random state is kept by who calls it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.report import Report, Scalar
from tunemill.stages.training.keys.samples import SampleKeys

TITLE = "What the model writes"
# Characters of each text in the table; the log has all of them.
LONGEST = 600
Score = Callable[[Any], dict[str, float]]


def with_samples(score: Score, config: SampleKeys, rows: Rows, tokenizer: Path, report: Report) -> Score:
    """The same score, which also reports what the model makes of the first rows."""
    reader = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    drawing = {
        "temperature": config.generation_temperature,
        "top_p": config.generation_top_p,
        "top_k": config.generation_top_k or 0,
    }
    settings = GenerationConfig(
        max_new_tokens=config.generation_max_new_tokens,
        do_sample=config.draws,
        eos_token_id=reader.eos_token_id,
        pad_token_id=reader.pad_token_id or 0,
        use_cache=True,
        **(drawing if config.draws else {}),
    )

    def scored(model: Any) -> dict[str, float]:
        found = score(model)
        was_training = model.training
        model.eval()
        shown: list[list[Scalar]] = []
        for row in range(min(config.num_generation_samples, len(rows))):
            ids = rows.ids(row)
            given = torch.tensor(ids[: max(1, int(len(ids) * config.generation_prompt_ratio))])[None].long()
            given = given.to(next(model.parameters()).device)
            with torch.no_grad():
                written = model.generate(
                    input_ids=given, attention_mask=torch.ones_like(given), generation_config=settings
                )
            prompt, answer = reader.decode(given[0]), reader.decode(written[0, given.shape[1] :])
            report.log(f"sample of row {row + 1}: {prompt!r} -> {answer!r}")
            shown.append([row + 1, prompt[-LONGEST:], answer[:LONGEST]])
        # That of the next evaluation takes its place.
        report.table(TITLE, ["row", "given", "written"], shown)
        model.train(was_training)
        return found

    return scored
