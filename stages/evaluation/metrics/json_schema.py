"""Whether an answer is JSON, and fits a schema."""

import json
from collections.abc import Iterator
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
        """What is no schema, or names one that is not in it, as far as the package is there to say it."""
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for

        schema = self.fits or {}
        if not isinstance(schema.get("$schema", ""), str):
            return f"fits: $schema must be a text (given: {schema['$schema']!r})"
        try:
            validator_for(schema).check_schema(schema)
        except SchemaError as error:
            return f"fits: is no JSON schema: {error.message}"
        missing = next(missing_in(schema), None)
        if missing is not None:
            return f"fits: {missing} is nowhere in this schema, and nothing is fetched. Write it below $defs"
        try:
            is_valid(schema, None)
        except RecursionError:
            return "fits: a $ref leads back to itself, and so to nothing. Take it out"
        return None


def missing_in(schema: dict[str, Any]) -> Iterator[str]:
    """Every `$ref` of a schema that leads neither into it nor to one that every JSON schema knows."""
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    dialect = validator_for(schema).META_SCHEMA["$schema"]
    whole = specification_with(dialect).create_resource(schema)
    around = [(REGISTRY.resolver_with_root(whole), whole)]
    while around:
        resolver, part = around.pop()
        named = part.contents.get("$ref") if isinstance(part.contents, dict) else None
        if isinstance(named, str):
            try:
                resolver.lookup(named)
            except Unresolvable:
                yield named
        around += [(resolver.in_subresource(inner), inner) for inner in part.subresources()]


def score(settings: JsonSchema, one: Answered) -> bool:
    """Whether all of the answer is JSON that fits."""
    try:
        document = json.loads(one.prediction)
        return settings.fits is None or is_valid(settings.fits, document)
    except (ValueError, RecursionError):
        return False


def is_valid(schema: dict[str, Any], document: object) -> bool:
    """Whether a document fits a schema."""
    from jsonschema.validators import validator_for
    from referencing import Registry

    # The registry that is taken without one asks the network.
    return bool(validator_for(schema)(schema, registry=Registry()).is_valid(document))
