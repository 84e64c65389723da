"""The keys that say which weights a full training trains: named ones, a few layers in turn, the telling ones."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from tunemill.stages.declaration import ConflictError, Idle, StageConfig

# `pattern[start:end]`, `pattern[row]`: rows of the tensors that match.
ROWS = re.compile(r"(?P<pattern>.+)\[(?P<start>[0-9]*)(?P<colon>:)?(?P<end>[0-9]*)\]")
# A period separates the parts of a name; `.*` and `.+` mean what they do elsewhere.
PERIOD = re.compile(r"(?<!\\)\.(?![*+])")
ADAPTER_ALONE = "it chooses among the model's own weights, and with an adapter none of them is trained"


@dataclass(frozen=True)
class Unfrozen:
    """A pattern of parameters' names, found anywhere in a name, and of which rows (from, to; None: to the end)."""

    pattern: str
    rows: tuple[int, int | None] | None = None

    def matches(self, name: str) -> bool:
        """Whether a parameter's whole name has the pattern in it."""
        return re.search(PERIOD.sub(r"\\.", self.pattern), name) is not None


def read_pattern(text: str) -> Unfrozen:
    """`^model.embed_tokens.weight$[:32000]`. Raises ValueError for no rows, and for no regular expression."""
    found = ROWS.fullmatch(text)
    rows: tuple[int, int | None] | None = None
    # `layers.[0-9]` ends in a set of characters, and so does `4[4]`: rows stand behind a `$` or with a colon.
    if found and (found["colon"] or found["pattern"].endswith("$")) and (found["start"] or found["end"]):
        start, end = int(found["start"] or 0), int(found["end"]) if found["end"] else None
        rows = (start, end if found["colon"] else start + 1)
        if rows[1] is not None and rows[1] <= rows[0]:
            raise ValueError(f"{text}: the rows end before they begin")
        text = found["pattern"]
    try:
        re.compile(PERIOD.sub(r"\\.", text))
    except re.error as error:
        raise ValueError(f"{text}: no valid regular expression: {error}") from None
    return Unfrozen(text, rows)


class FrozenKeys(StageConfig):
    """Train a part of the model's weights, and leave the others as they are."""

    unfrozen_parameters: list[str] | None = Field(
        None,
        min_length=1,
        description="regular expressions of the parameters to train, all others stay: [start:end] behind one for rows "
        "of it alone, such as ^model.embed_tokens.weight$[32000:]",
    )
    lisa_n_layers: PositiveInt | None = Field(
        None, description="LISA: so many layers are trained at a time, drawn anew; embeddings and head always"
    )
    lisa_step_interval: PositiveInt | None = Field(None, description="LISA: steps between two draws")
    lisa_layers_attribute: str = Field("model.layers", description="LISA: where the layers are in the model")
    spectrum_top_fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Spectrum: train this share of each kind of linear module, those with most signal over noise, and "
        "embeddings and head",
    )

    @field_validator("unfrozen_parameters", mode="after")
    @classmethod
    def _patterns(cls, value: list[str] | None) -> list[str] | None:
        for text in value or []:
            read_pattern(text)
        return value

    @property
    def unfrozen(self) -> list[Unfrozen]:
        """`unfrozen_parameters`, read."""
        return [read_pattern(text) for text in self.unfrozen_parameters or []]

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is trained, in place of the model's own weights."""
        return False

    @model_validator(mode="after")
    def _check_frozen(self) -> Self:
        if (self.lisa_n_layers is None) != (self.lisa_step_interval is None):
            raise ConflictError(
                "LISA needs both lisa_n_layers and lisa_step_interval", "lisa_n_layers", "lisa_step_interval"
            )
        chosen = [
            key
            for key in ("unfrozen_parameters", "lisa_n_layers", "spectrum_top_fraction")
            if getattr(self, key) is not None
        ]
        if len(chosen) > 1:
            raise ConflictError(f"{' and '.join(chosen)}: each says what is trained. Keep one", *chosen)
        return self

    def idle(self) -> Iterator[Idle]:
        """Choices among weights that are not trained, and where LISA's layers are when it draws none."""
        yield from super().idle()
        for key in FrozenKeys.model_fields:
            if self.has_adapter and self.is_set(key):
                yield Idle(key, ADAPTER_ALONE)
        if self.is_set("lisa_layers_attribute") and self.lisa_n_layers is None and not self.has_adapter:
            yield Idle("lisa_layers_attribute", "lisa_n_layers is unset, so no layers are drawn")
