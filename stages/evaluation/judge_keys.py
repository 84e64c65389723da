"""The keys of a judge: of `judge` in an entry of `pipeline.evaluations`."""

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from tunemill.stages.declaration import Entry, Runtime, StageConfig, TextOrFile
from tunemill.stages.evaluation.endpoint_key import EndpointUrl
from tunemill.stages.evaluation.regular_expressions import RegularExpression

PROMPT = """\
You compare an answer with a reference.

Question:
{prompt}

Reference:
{reference}

Answer:
{prediction}

Does the answer say what the reference says? Think in a few sentences, then end with a line that is either
Verdict: yes
or
Verdict: no
"""
VERDICT = r"(?im)^\W*verdict\W+(\w+)"
# Extra of the client.
CLIENT = "openai"


class JudgeKeys(StageConfig):
    """Who judges, what is asked, and how the verdict is read."""

    url: Entry[EndpointUrl] = Field(
        description="the endpoint, as OpenAI's client takes it, such as http://127.0.0.1:8000/v1; the "
        "environment gives its key: OPENAI_API_KEY"
    )
    model: Entry[str] = Field(min_length=1, description="which model of the endpoint judges")
    prompt: Entry[TextOrFile[str]] = Field(
        PROMPT,
        description="what is asked: a text with {prompt}, {reference} and {prediction}, or the path of a file with it; "
        "unset asks whether the answer says what the reference says",
    )
    verdict: Entry[RegularExpression] = Field(
        VERDICT,
        description="regular expression: the last place it finds in the judge's answer; of groups the first",
    )
    values: Entry[dict[str, bool | float]] = Field(
        {"yes": True, "no": False},
        min_length=1,
        description="verdict: value; a verdict that is a number and not listed counts as that number",
    )
    max_tokens: Entry[PositiveInt] = Field(1024, description="longest answer of the judge, in tokens")
    temperature: Entry[NonNegativeFloat] = Field(0.0, description="of the judge")
    at_once: Entry[Runtime[PositiveInt]] = Field(
        8, description="questions that are asked at once: changes the time, not the answers"
    )
    timeout: Entry[Runtime[PositiveFloat]] = Field(
        120.0, description="seconds to wait for an answer: changes whether there is one, not what it says"
    )

    @field_validator("prompt")
    @classmethod
    def _asks_about_the_answer(cls, value: str) -> str:
        if "{prediction}" not in value:
            raise ValueError("must have {prediction}, where the answer stands that is judged")
        return value
