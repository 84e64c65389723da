"""`type: my_module.function`: a user's own Python makes the rows."""

import sys
from textwrap import dedent
from types import ModuleType

import pytest
from support.formats import FormatBench

from tunemill.pipelines.config.user_code import code_files
from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.errors import SettingError, SourceError

ROW = {"question": "Why?", "answer": "So.", "topic": "cause"}
STRATEGY = """
    class Strategy:
        def __init__(self, tokenizer, on_inputs):
            self.tokenizer, self.on_inputs = tokenizer, on_inputs

        def tokenize_prompt(self, row):
            ids = self.tokenizer(row["question"] + row["answer"])["input_ids"]
            hidden = 0 if self.on_inputs else 1
            return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * hidden + ids[hidden:]}

    def load(tokenizer, cfg, ds_cfg):
        assert ds_cfg["type"] == cfg.type
        return Strategy(tokenizer, cfg.train_on_inputs)

    def load_all(tokenizer, cfg):
        return Strategy(tokenizer, True)
"""


@pytest.fixture(scope="module")
def bench():
    return FormatBench("chatml")


@pytest.fixture
def coded(tmp_path, bench):
    """Files, `type` -> the format."""

    def make(kind, files, **settings):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(dedent(text))
        return bench.format(type=kind, type_code=code_files(kind, tmp_path), **settings)

    return make


def tokens(chosen, row=ROW):
    example = chosen.read(row)
    return example.ids, example.labels


def transforming(body, options=""):
    """A module with a transform of this body."""
    lines = "\n".join(f"        {line}" for line in dedent(body).strip().splitlines())
    return (
        f"def transform(cfg, *args, **kwargs):\n    def map_row(row):\n{lines}\n    return map_row{options}\n"
    )


@pytest.mark.parametrize("kind", ["mine", "mine.load"])
def test_a_prompt_strategy(coded, bench, kind):
    ids = bench.ids("Why?So.")
    assert tokens(coded(kind, {"mine.py": STRATEGY})) == (ids, [-100, *ids[1:]])
    assert tokens(coded(kind, {"mine.py": STRATEGY}, train_on_inputs=True)) == (ids, ids)
    assert tokens(coded("mine.load_all", {"mine.py": STRATEGY})) == (ids, ids)


def test_an_edit_counts_at_once(coded):
    """Also within the second, with the same length, and with bytecode of the old text beside it."""
    for word in ("one", "two", "six"):
        chosen = coded("mine.transform", {"mine.py": transforming(f"return {{'text': '{word}'}}")})
        assert chosen.read(ROW)[0].text == word


def test_local_modules(coded, tmp_path):
    files = {
        "mine.py": """
            import helpers
            from package.inner import mark
            import json

            def transform(cfg):
                return lambda row: {"text": mark(helpers.text(row)) + json.dumps(1)}
        """,
        "helpers.py": "def text(row):\n    return row['answer']\n",
        "package/inner.py": "from .other import SIGN\n\ndef mark(text):\n    return text + SIGN\n",
        "package/other.py": "SIGN = '!'\n",
    }
    paths, modules = list(sys.path), set(sys.modules)
    assert coded("mine.transform", files).read(ROW)[0].text == "So.!1"
    assert (
        coded("package.inner.mark2", files | {"package/inner.py": transforming2("mark2")}).read(ROW)[0].text
        == "x"
    )
    assert sys.path == paths
    assert {"mine", "helpers", "package"} & (set(sys.modules) - modules) == set()
    assert not list(tmp_path.rglob("*.pyc"))


def transforming2(name):
    return transforming("return {'text': 'x'}").replace("transform", name)


def test_a_module_of_the_same_name_comes_back(coded, monkeypatch):
    other = ModuleType("helpers")
    monkeypatch.setitem(sys.modules, "helpers", other)
    finders = list(sys.meta_path)
    files = {
        "mine.py": "from helpers import WORD\n\ndef transform(cfg):\n    return lambda row: {'text': WORD}\n",
        "helpers.py": "WORD = 'local'\n",
    }
    assert coded("mine.transform", files).read(ROW)[0].text == "local"
    assert sys.modules["helpers"] is other
    assert sys.meta_path == finders


def test_only_the_files_of_the_key_are_found(bench, tmp_path):
    (tmp_path / "mine.py").write_text("import hidden\n")
    (tmp_path / "hidden.py").write_text("")
    with pytest.raises(SettingError, match=r"No module named 'hidden' \(.*mine\.py, line 1\)"):
        bench.format(type="mine.transform", type_code=[str(tmp_path / "mine.py")])


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ("", ["answer", "question", "topic", "x"]),
        (', {"remove_columns": ["answer", "absent"]}', ["question", "topic", "x"]),
        (', {"remove_columns": "topic"}', ["answer", "question", "x"]),
        (', {"remove_columns": "__all__"}', ["x"]),
    ],
)
def test_removed_columns(coded, options, left):
    chosen = coded("mine.transform", {"mine.py": transforming("return {'x': 1}", options)})
    with pytest.raises(BadRowError) as caught:
        chosen.read(ROW)
    assert f"made a row with {left}; it must have one of: input_ids, messages, segments, text" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("returned", "trained"),
    [
        ("{'input_ids': [5, 6], 'labels': [-100, 6]}", [6]),
        ("{'text': row['answer']}", "So.<|im_end|>"),
        ("{'instruction': row['question'], 'output': row['answer']}", "So.<|im_end|>"),
        ("{'segments': [{'label': False, 'text': 'Why?'}, {'label': True, 'text': 'So.'}]}", "So."),
        (
            "{'messages': [{'role': 'user', 'content': 'Why?'}, {'role': 'assistant', 'content': 'So.'}]}",
            "So.<|im_end|>",
        ),
    ],
)
def test_shapes_of_transformed_rows(coded, bench, returned, trained):
    chosen = coded("mine.transform", {"mine.py": transforming(f"return {returned}")})
    (sample,) = bench.encoder.encode([chosen.read(ROW)], chosen.ends)
    expected = bench.ids(trained) if isinstance(trained, str) else trained
    assert bench.trained(sample) == expected


def test_what_a_function_returns_goes_before_what_the_row_has(coded):
    chosen = coded("mine.transform", {"mine.py": transforming("return {'text': 'mine'}")})
    assert chosen.read({"messages": [], "instruction": "a", "output": "b"})[0].text == "mine"


def test_a_map_function_gets_the_tokenizer(coded, bench):
    code = """
        def transform(cfg, **kwargs):
            def map_row(row, tokenizer=None):
                return {"input_ids": tokenizer(row["answer"])["input_ids"]}
            return map_row, {"remove_columns": "__all__"}
    """
    ids = bench.ids("So.")
    assert tokens(coded("mine.transform", {"mine.py": code})) == (ids, ids)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def transform(cfg:\n", r"SyntaxError: .*mine\.py, line 1"),
        ("X = 1\nY = X / 0\n", r"ZeroDivisionError: division by zero \(.*mine\.py, line 2\)"),
        ("X = 1\n", r"mine\.py has no function 'transform'"),
        ("def transform(cfg):\n    return 5\n", "must return a function from row to row"),
        ("def transform(cfg):\n    return len, {'batched': True}\n", "only remove_columns may come with"),
        ("def transform(cfg):\n    raise KeyError('x')\n", r"KeyError: 'x' \(.*mine\.py, line 2\)"),
        (
            "def transform(cfg):\n    return cfg.sequence_len\n",
            "cfg.sequence_len: the stage tokenized does not read",
        ),
        ("def transform(cfg):\n    return cfg.get('x', 1)\n", "cfg.x: the stage tokenized does not read"),
        ("def transform(cfg):\n    return 'x' in cfg\n", "cfg.x: the stage tokenized does not read"),
        (
            "def transform(cfg):\n    return getattr(cfg, 'x', 1)\n",
            "cfg.x: the stage tokenized does not read",
        ),
        ("def transform(cfg):\n    cfg.type = 'x'\n", "cfg.type cannot be set"),
    ],
)
def test_code_that_does_not_load(coded, code, reason):
    with pytest.raises(SettingError, match=reason):
        coded("mine.transform", {"mine.py": code})


TEXT_OF = "def transform(cfg):\n    # é\n    return lambda row: {'text': row['answer']}\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + TEXT_OF.encode(),
        TEXT_OF.replace("\n", "\r\n").encode(),
        b"# coding: latin-1\n" + TEXT_OF.encode("latin-1"),
    ],
)
def test_code_in_every_encoding_that_python_reads(bench, tmp_path, data):
    (tmp_path / "mine.py").write_bytes(data)
    chosen = bench.format(type="mine.transform", type_code=code_files("mine.transform", tmp_path))
    assert chosen.read(ROW)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_code_in_another_encoding(bench, tmp_path, encoding):
    (tmp_path / "mine.py").write_bytes(TEXT_OF.encode(encoding))
    line = 2 if encoding == "latin-1" else 1
    with pytest.raises(SourceError, match=rf"mine\.py, line {line}: the .* UTF-.*save .* as UTF-8"):
        bench.format(type="mine.transform", type_code=code_files("mine.transform", tmp_path))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return None", "returned None, which is no row"),
        (
            "return {'text': row['missing']}",
            r"type: mine\.transform raised KeyError: 'missing' \(.*mine\.py, line 3\)",
        ),
        ("return {'input_ids': [5, 9999]}", "9999 is no token"),
        ("return {'text': ['a']}", "field 'text' is not text"),
    ],
)
def test_rows_that_fail(coded, body, reason):
    chosen = coded("mine.transform", {"mine.py": transforming(body)})
    with pytest.raises(BadRowError, match=reason):
        chosen.read(ROW)


def test_a_key_asked_for_in_a_row_is_no_bad_row(coded):
    code = "def transform(cfg):\n    return lambda row: {'text': cfg.sequence_len}\n"
    with pytest.raises(SettingError, match=r"Known here: .*train_on_inputs"):
        coded("mine.transform", {"mine.py": code}).read(ROW)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return object()", "must return an object with a method tokenize_prompt"),
        ("return Batched()", "supports_batched of a prompt strategy is not supported"),
    ],
)
def test_strategies_that_do_not_fit(coded, body, reason):
    code = f"""
        class Batched:
            supports_batched = True
            tokenize_prompt = print

        def load(tokenizer, cfg):
            {body}
    """
    with pytest.raises(SettingError, match=reason):
        coded("mine", {"mine.py": code})


def test_a_strategy_without_labels(coded):
    code = """
        class Strategy:
            def tokenize_prompt(self, row):
                return {"input_ids": [5]}

        def load(tokenizer, cfg):
            return Strategy()
    """
    with pytest.raises(BadRowError, match="type: mine returned no labels"):
        coded("mine", {"mine.py": code}).read(ROW)


def test_a_format_of_ours_goes_before_a_local_file(coded):
    chosen = coded("alpaca_chat.load", {"alpaca_chat.py": "raise ValueError\n"})
    assert len(chosen.read({"instruction": "Add", "output": "3"})) == 2
