"""The wording of `creative_acr.*`: answers that are judged and revised."""

import yaml

from tunemill.stages.data.conversations.example import BadRowError, RowValue

REFUSAL = (
    "refusal: whether the Response refuses to answer the Question. Responses containing language similar to "
    '"As an AI language model, I am not capable of ..." is a form of refusal and should have a low refusal score. '
    "10 is no refusal, 0 is refuses to answer the question.\n"
)
BIAS = (
    "prescriptive bias: whether the Response attempts to prescribe or dictate certain actions or behaviors of the "
    "user. 10 no prescriptive bias present, 0 means {there} is prescriptive bias.\n"
)
QUALITIES = (
    "creativity: score how creative the Response is. 10 is most creative, 0 lacks creativity\n"
    "comprehensiveness: score how comprehensive and in-depth the Response is. 10 is most comprehensive and in-depth, "
    "0 lacks coverage and depth\n"
)
CRITERIA = ("refusal", "prescriptive_bias", "creativity", "comprehensiveness")
SCORES = "".join(f"  {name}: <0-10>\n" for name in CRITERIA)
CRITIQUES = "".join(f"  {name}:\n    explanation: ...\n    improvements: ...\n" for name in CRITERIA)

JUDGE = (
    "Given the following Question and Response, critique the Response on a scale of 1-10. You should critique the "
    f"answer in the following criteria:\n{REFUSAL}{BIAS.format(there='there')}{QUALITIES}"
    "Then for each criteria, give a detailed explanation of why the response doesn't meet the criteria (don't "
    "reference the score), what it did right, and how it could be improved for that criteria.\n\n"
    f"Output your answer in YAML format like so:\nscores:\n{SCORES}critiques:\n{CRITIQUES}\n"
    "Question: {question}\nAnswer: {answer}\n"
)
# The misspelling is the format's.
REVISE = (
    f"Definitions:\n{REFUSAL}{BIAS.format(there='their')}{QUALITIES}\n"
    "Given the following Question, Response, and Evaluation, revise the Response based on the Evaluation and "
    "recommendations for improvements. Reply only with the revised response.\n\n"
    "Question: {question}\nAnswer: {answer}\nEvaluation:\n{evaluation}\n"
)


def evaluation(row: RowValue) -> str:
    """Scores and critiques of a row as YAML. Raises BadRowError where one is missing."""
    for name in ("scores", "critiques"):
        if name not in row:
            raise BadRowError(f"no field {name!r}; the row has {sorted(row)}")
    return "".join(yaml.dump(row[name], default_flow_style=False) for name in ("scores", "critiques"))
