"""Keeping the token ids in config.json and generation_config.json in step with the tokenizer."""

from typing import Any


def align_special_tokens(
    config: dict[str, Any], generation: dict[str, Any], ids: dict[str, int | None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both files with the tokenizer's ids; `ids` has `bos_token_id`, `eos_token_id`, `pad_token_id`.

    A token that the tokenizer does not define leaves the file's value alone. Generation stops at the tokenizer's
    end token and still at those that the file already named: a model that learns to end a turn with a token that
    generation does not stop at would never stop.
    """
    known = {name: value for name, value in ids.items() if value is not None}
    if "text_config" in config:
        text = _with_ids(config["text_config"], known, several=False)
        return {**config, "text_config": text}, _with_ids(generation, known, several=True)
    return _with_ids(config, known, several=False), _with_ids(generation, known, several=True)


def _with_ids(values: dict[str, Any], known: dict[str, int], *, several: bool) -> dict[str, Any]:
    """`several`: more than one end token may stand here, so the old ones stay; a list always keeps its ids."""
    changed = {**values, **known}
    old = values.get("eos_token_id")
    if "eos_token_id" in known and (several or isinstance(old, list)):
        listed = old if isinstance(old, list) else [] if old is None else [old]
        stops = list(dict.fromkeys([known["eos_token_id"], *listed]))
        changed["eos_token_id"] = stops[0] if len(stops) == 1 else stops
    return changed
