"""Whether an answer is JSON, and fits a schema."""

import json
from typing import Any, Literal

from pydantic import Field

from tunemill.stages.evaluation.answered import Answered
from tunemill.stages.evaluation.metrics.settings import MetricSettings


class JsonSchema(MetricSettings):
    """A JSON schema, of draft 2020-12 where it names no other."""

    metric: Literal["json_schema"]
    fits: dict[str, Any] | None = Field(
        None, description="the schema that the answer must fit; unset: any JSON will do"
    )

    @property
    def packages(self) -> tuple[str, ...]:
        """Whether text is JSON needs none."""
        return ("jsonschema",) if self.fits is not None else ()

    def fault(self) -> str | None:
        """What is no schema, as far as the package is there to say it."""
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for

        schema = self.fits or {}
        try:
            validator_for(schema).check_schema(schema)
        except SchemaError as error:
            return f"fits: is no JSON schema: {error.message}"
        return None


def score(settings: JsonSchema, one: Answered) -> bool:
    """Whether all of the answer is JSON that fits."""
    try:
        document = json.loads(one.prediction)
    except ValueError:
        return False
    if settings.fits is None:
        return True
    from jsonschema.validators import validator_for

    return bool(validator_for(settings.fits)(settings.fits).is_valid(document))
