"""What differs between two key documents: the reasons for a rerun, in words."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from tunemill.pipelines.graph.nodes import Node
from tunemill.resources.canonical import SHORT
from tunemill.resources.redaction import redacted


def differences(before: Mapping[str, Any], after: Mapping[str, Any], node: Node) -> list[str]:
    """The differences of two key documents, each in one line."""
    if before.get("stage") != after["stage"]:
        return [f"it is made by another stage: {before.get('stage')} -> {after['stage']}"]
    found = []
    if before["version"] != after["version"]:
        found.append(f"stage {after['stage']} has a new version: {before['version']} -> {after['version']}")
    config = node.stage.config
    old_config, new_config = (config.as_keys(with_defaults(config, one["config"])) for one in (before, after))
    found += _differing("", old_config, new_config)
    for field, names in node.sources.items():
        old, new = before["sources"].get(field), after["sources"].get(field, [])
        if old != new:
            found.append(_source_change(field, _changed(names, old or [], new), new))
    found += [f"{field}: no longer a file" for field in before["sources"] if field not in after["sources"]]
    for name in sorted({*before["inputs"], *after["inputs"]}):
        old, new = before["inputs"].get(name), after["inputs"].get(name)
        if old != new:
            upstream = ", ".join(node.inputs.get(name, ()))
            found.append(f"input {name} ({upstream}) changed: {_digests(old)} -> {_digests(new)}")
    found += _differing("library ", before["libraries"], after["libraries"])
    if before["schema"] != after["schema"]:
        found.append(f"keys are made in a new way: schema {before['schema']} -> {after['schema']}")
    return found


def _changed(
    names: Sequence[str], before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]]
) -> Sequence[str]:
    """Those of the sources that differ, where it can be told."""
    if not len(names) == len(before) == len(after):
        return names
    return [name for name, old, new in zip(names, before, after, strict=True) if old != new]


def _source_change(field: str, names: Sequence[str], identities: Sequence[Mapping[str, str]]) -> str:
    shown = ", ".join(redacted(name) for name in names)
    if any("nonce" in identity for identity in identities):
        return f"{field}: the server of {shown} does not say what is in it, so it is read every time"
    return f"{field}: the contents of {shown} changed"


def _differing(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differing(f"{prefix}{name}.", old, new)
        elif old != new:
            found.append(f"{prefix}{name} {_short(old)} -> {_short(new)}")
    return found


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _digests(digests: Sequence[str] | None) -> str:
    return ", ".join(digest[:SHORT] for digest in digests) if digests else "none"


def with_defaults(settings: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, and the default of all that is not, also inside of settings that are mappings themselves."""
    fields = settings.model_fields
    defaults = settings.model_construct(
        **{name: field.get_default() for name, field in fields.items() if not field.is_required()}
    ).model_dump(mode="json", warnings=False)
    found = {**defaults, **given}
    for name, field in fields.items():
        nested = _settings_in(field.annotation)
        if nested is not None and isinstance(found.get(name), dict):
            found[name] = with_defaults(nested, found[name])
    return found


def _settings_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _settings_in(part))), None)
