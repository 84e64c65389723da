"""The body of the prompts stage: rows to prompts as tokens, beside the columns that rewards are given."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import TemplateError

from tunemill.stages.artifacts import RawDataset, Tokenizer
from tunemill.stages.data.conversations.chat_template import choose_template
from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.conversations.example import BadRowError, Render, RowValue
from tunemill.stages.data.conversations.loaded import LoadedTokenizer, load_to_encode
from tunemill.stages.data.conversations.template_body import ASKED, renderer
from tunemill.stages.data.conversations.today import with_clock
from tunemill.stages.data.conversations.user_config import UserConfig
from tunemill.stages.data.conversations.user_functions import map_function, row_of
from tunemill.stages.data.conversations.user_modules import UserFailures, load_function, parameters
from tunemill.stages.data.prompts.answered import READERS
from tunemill.stages.data.prompts.config import PromptsConfig
from tunemill.stages.data.prompts.reading import Read, Reader, as_it_is, questions_in
from tunemill.stages.data.rows.answers import GROUND_TRUTH, fault_of_answer
from tunemill.stages.data.rows.bad_rows import BadRows, none_left
from tunemill.stages.data.rows.prompt_rows import OF_DATASET
from tunemill.stages.data.rows.raw_rows import RawRow, raw_batches
from tunemill.stages.data.rows.token_rows import open_writer
from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report, Workspace

SHOWN, LONGEST_SHOWN = 5, 300


def prompts(
    config: PromptsConfig, dataset: RawDataset, tokenizer: Tokenizer, out: Workspace, report: Report
) -> None:
    """Write `rows.arrow`.

    Raises RowError for bad rows, after looking at all of them, and when no row is left.
    """
    loaded, reference = load_to_encode(tokenizer)
    encoder = Encoder(reference, loaded.eos_token_id)
    render = _renderer(config, loaded, report)
    read = _answered(_reader(config, loaded)) if config.needs_answer else _reader(config, loaded)
    name = Path(config.path).name if config.path else "the dataset"
    bad, rows = BadRows(name, config.bad_rows, out.data), 0
    shown: list[dict[str, Any]] = []
    with open_writer(out.data / "rows.arrow", OF_DATASET) as writer:
        for batch in raw_batches(dataset.rows, name):
            made = []
            for raw in batch:
                try:
                    made += [_row(raw, one, render, encoder) for one in read(raw.value)]
                except BadRowError as error:
                    bad.add(raw.place, str(error), raw.text, raw.value)
            bad.add_good(len(made), batch[0].value if made else None)
            if made and not bad.stops:
                writer.write_batch(pa.RecordBatch.from_pylist(made, schema=OF_DATASET))
                shown += made[: SHOWN - len(shown)]
            rows += len(made)
            report.progress(rows, None, "rows")
    bad.finish(report)
    if rows == 0:
        raise none_left(bad)
    report.summary(rows=rows)
    report.table(
        "Prompts",
        ["row", "tokens", "prompt", "columns"],
        [
            [
                one["source_row"],
                len(one["prompt_ids"]),
                loaded.decode(one["prompt_ids"])[-LONGEST_SHOWN:],
                ", ".join(json.loads(one["columns"])),
            ]
            for one in shown
        ],
    )


def _renderer(config: PromptsConfig, loaded: LoadedTokenizer, report: Report) -> Render | None:
    template = choose_template(None, None, loaded.chat_template)
    if template is None:
        return None
    variables = with_clock(config.variables, config.today, template, report)
    return renderer(loaded, template, {**variables, ASKED: True})


def _reader(config: PromptsConfig, loaded: LoadedTokenizer) -> Reader:
    if config.is_own:
        return _own(config, loaded)
    if config.type is None:
        return as_it_is
    return READERS.get(config.type) or questions_in(config.field_messages)


def _answered(read: Reader) -> Reader:
    """The reader, which refuses rows without an answer."""

    def checked(row: RowValue) -> list[Read]:
        found = read(row)
        for one in found:
            if (fault := fault_of_answer(one.columns.get(GROUND_TRUTH))) is not None:
                raise BadRowError(fault)
        return found

    return checked


def _own(config: PromptsConfig, loaded: LoadedTokenizer) -> Reader:
    """Rows that the function's map function makes. Raises SettingError where the code does not load."""
    name, files = str(config.type), config.type_code
    assert files is not None
    function = load_function("type", name, files)
    with UserFailures(f"type: {name}", files, SettingError):
        made = function(UserConfig("prompts", config))
    mapping = map_function(f"type: {name}", made)
    wants_words = "tokenizer" in parameters(mapping.function)
    extra = {"tokenizer": loaded.with_transformers()} if wants_words else {}

    def read(row: RowValue) -> list[Read]:
        kept = {} if mapping.removed is None else {k: v for k, v in row.items() if k not in mapping.removed}
        with UserFailures(f"type: {name}", files, BadRowError):
            returned = mapping.function(dict(row), **extra)
        try:
            return as_it_is(kept | row_of(f"type: {name}", returned))
        except BadRowError as error:
            raise BadRowError(f"what type: {name} made of it: {error}") from None

    return read


def _row(raw: RawRow, found: Read, render: Render | None, encoder: Encoder) -> dict[str, Any]:
    if isinstance(found.prompt, str):
        ids = [*encoder.opening.tolist(), *encoder.ids_of(found.prompt)]
    elif render is None:
        raise BadRowError(
            "its prompt is made of messages, and the tokenizer has no chat template. Choose one with chat_template"
        )
    else:
        try:
            ids = encoder.ids_of(render(found.prompt, None))
        except TemplateError as error:
            raise BadRowError(f"the chat template refuses it: {error}") from None
    if not ids and found.prompt:
        raise BadRowError("its prompt has no token")
    return {
        "source_row": raw.number,
        "prompt_ids": ids,
        "prompt": _json("its prompt", found.prompt),
        "columns": _columns(found.columns),
    }


def _columns(columns: RowValue) -> str:
    try:
        return json.dumps(columns, ensure_ascii=False)
    except (TypeError, ValueError):
        for name, value in columns.items():
            _json(f"column {name!r}", value)
        raise


def _json(what: str, value: Any) -> str:
    """A value as rewards will read it. Raises BadRowError for what would be another value there."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise BadRowError(
            f"{what} is kept as JSON, which does not hold it ({error}): {value!r:.60}. Make a text or a number of it "
            f"(type: my_module.function), or leave it out of the data"
        ) from None
