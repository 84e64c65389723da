"""Corpus scores of generated answers against their references, by sacrebleu."""

from collections.abc import Mapping, Sequence
from typing import Any

import sacrebleu

from tunemill.stages.evaluation.questions import Question

SCORES = {
    "sacrebleu": sacrebleu.corpus_bleu,
    "chrf": sacrebleu.corpus_chrf,
    "ter": sacrebleu.corpus_ter,
}


def text_scores(
    names: Sequence[str], questions: Sequence[Question], answers: Mapping[int, list[int]], words: Any
) -> dict[str, float]:
    """Name -> score of all answers together, as sacrebleu computes it by default: BLEU and chrF of 100, TER in percent.

    Texts are without special tokens. BLEU (Papineni et al. 2002), chrF (Popović 2015), TER (Snover et al. 2006).
    """
    references = [words.decode(one.reference, skip_special_tokens=True) for one in questions]
    predictions = [words.decode(answers[one.row], skip_special_tokens=True) for one in questions]
    return {name: float(SCORES[name](predictions, [references]).score) for name in names}
