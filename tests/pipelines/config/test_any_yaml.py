"""`check` of any YAML ends soon: with 0, or with 1 and a message that names the file; never with a traceback."""

import io
import itertools
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.project import CONFIG

from tunemill.pipelines.cli import main
from tunemill.pipelines.config.schema import key_tree

# Of computing: a busy machine lets a test wait for much longer. An idle one takes well below one.
SECONDS = 5
ODD = (
    "", "~", "true", "no", "0", "-1", "010", "1:30", "1e400", "1e-4", ".nan", "-.inf", "1_000", "0x", "10" * 20,
    "1" * 5000, "2024-01-01", "2024-13-45", "=", "<<", "[]", "{}", "[[]]", "[null]", "[true, 1, x]", "{a: {b: [c]}}",
    "{1: 2}", "{true: 1}", "{? [a] : b}", '"\\0"', '"\\ud800"', '"\\e[31m"', "é", "'~nobody/x'", "s3://bucket/x",
    "asset://", "asset://a/b", "'{{ x'", "!!bool abc", "!!timestamp x", "!!int x", "!!float x", "!!null x",
    "!!binary x", "!!set {a, b}", "!!omap [a: b]", "!!map [a]", "!!seq {a: b}", "!!str [a]", "!!python/name:os.system",
    "!custom x", "!<tag> x", "!", "&a [*a]", "*nothing", "&x {<<: *x}", "{<<: 3}", "{<<: [3]}",
    "{<<: {a: b}, <<: {a: c}}",
    "|\n  text", "'x", "[", "}", "%", "@", "`", "\t", "a" * 3000, "/" + "a/" * 3000, "x\n  y: z", "- a\n- b", "? x",
)  # fmt: skip
TAGS = (
    "!!str",
    "!!bool",
    "!!int",
    "!!float",
    "!!timestamp",
    "!!set",
    "!!merge",
    "!mine",
    "&a",
    "*a",
    "? ",
    "- ",
)
SNIPPETS = tuple(
    snippet.encode() for snippet in (*TAGS, "[", "]", "{", "}", ":", "\n", "\t", "#", '"', "'", "|", "<<: ")
)


@pytest.fixture(scope="module")
def good():
    return yaml.safe_dump(CONFIG, sort_keys=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("any") / "any.yml"


def check(file: Path, contents: bytes, *overrides: str) -> None:
    """Run `check`, and see that it ends as it must."""
    file.write_bytes(contents)
    started = time.process_time()
    streams = Streams()
    with streams:
        code = main(["check", str(file), *overrides])
    seconds = time.process_time() - started
    assert seconds < SECONDS, f"{seconds:.1f} s"
    assert code in (0, 1)
    assert (code == 0) == ("no problem" in streams.out)
    assert "Traceback" not in streams.err
    if code == 1:
        assert streams.err.startswith(f"{file}:")


class Streams:
    """What is printed within; hypothesis runs many examples in one test, so `capsys` would mix them."""

    def __enter__(self):
        self.before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict") for _ in range(2)
        )
        return self

    def __exit__(self, *_):
        self.out, self.err = (self._text(stream) for stream in (sys.stdout, sys.stderr))
        sys.stdout, sys.stderr = self.before

    @staticmethod
    def _text(stream):
        stream.flush()
        return stream.buffer.getvalue().decode()


@pytest.mark.slow
def test_any_value_of_any_key(file):
    """Every known key with some odd values, and every odd value at some keys."""
    draw = random.Random(0)
    keys = sorted({*key_tree(), *CONFIG})
    pairs = [(key, draw.choice(ODD)) for key in keys]
    pairs += [(key, value) for value in ODD for key in draw.sample(keys, 2)]
    for key, value in pairs:
        rest = {name: item for name, item in CONFIG.items() if name != key}
        check(file, f"{yaml.safe_dump(rest, sort_keys=False)}{key}: {value}\n".encode())


def test_any_value_of_any_key_of_an_entry(file):
    rest = yaml.safe_dump({name: item for name, item in CONFIG.items() if name != "datasets"})
    draw = random.Random(1)
    for key in sorted(key_tree()["datasets"]):
        for value in draw.sample(ODD, 3):
            given_path = "" if key == "path" else "    path: data/sums.jsonl\n"
            check(file, f"{rest}datasets:\n  -\n{given_path}    {key}: {value}\n".encode())


NO_PATHS = (
    "/" + "a/" * 3000, "a" * 3000, "a" * 3000 + "*", "/" + "a/" * 3000 + "*",
    "~nobody/x", "~nobody/*", "loop", "loop/*",
)  # fmt: skip


@pytest.mark.parametrize("name", NO_PATHS)
@pytest.mark.parametrize("key", ["path", "data_files", "type", "chat_template_jinja", "split"])
def test_names_that_can_be_no_path(file, key, name):
    loop = file.parent / "loop"
    if not loop.is_symlink():
        loop.symlink_to("loop")
    entry = {"path": "x.jsonl", "type": "chat_template", key: name}
    check(file, yaml.safe_dump({**CONFIG, "datasets": [entry]}).encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    [
        pytest.param(key, marks=[pytest.mark.exhaustive] * (number % 4 > 0))
        for number, key in enumerate(sorted(key_tree()))
    ],
)
def test_any_value_as_an_override(file, good, key):
    draw = random.Random(key)
    for value in draw.sample([value for value in ODD if "\0" not in value], 2):
        check(file, good.encode(), f"--{key}={value}")


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_changed(file, good, data):
    contents = bytearray(good.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(contents)))
        length = data.draw(st.integers(0, 3))
        contents[place : place + length] = data.draw(st.sampled_from(SNIPPETS) | st.binary(max_size=3))
    check(file, bytes(contents))


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_lines_moved_tagged_and_repeated(file, good, data):
    lines = good.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["tag", "odd", "twice", "drop", "indent", "swap"]))
        key, colon, value = lines[place].partition(": ")
        if change == "tag":
            lines[place] = f"{key}{colon}{data.draw(st.sampled_from(TAGS))} {value}"
        elif change == "odd":
            lines[place] = f"{key}: {data.draw(st.sampled_from(ODD))}"
        elif change == "twice":
            lines.insert(place, lines[place])
        elif change == "drop" and len(lines) > 1:
            del lines[place]
        elif change == "indent":
            lines[place] = " " * data.draw(st.integers(1, 60)) + lines[place]
        else:
            lines[place], lines[0] = lines[0], lines[place]
    check(file, "\n".join(lines).encode())


NESTED = "abcdefghijklm"


def doubled(start: str, form: str) -> str:
    """A dozen anchors, each of which names the one before nine times."""
    lines = [f"a: &a {start}"]
    for before, name in itertools.pairwise(NESTED):
        lines.append(f"{name}: &{name} " + form.replace("@", ", ".join([f"*{before}"] * 9)))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (doubled("[1]", "[@]"), "aliases make more than"),
        (doubled("[]", "[@]"), "aliases make more than"),
        (doubled("{x: 1}", "{<<: [@]}"), "aliases make more than"),
        (doubled("x", "{k: [@]}"), "aliases make more than"),
        ("a: &a {b: *a}\n", "an alias stands inside of what it names"),
        ("a: &a {<<: *a}\n", "an alias stands inside of what it names"),
        ("x: " + "[" * 200_000, "nested more than"),
        ("x: " + "{a: " * 50_000, "nested more than"),
        ("- " * 100_000, "nested more than"),
        ("? " * 100_000, "nested more than"),
        ("".join(" " * depth + "a:\n" for depth in range(600)), "nested more than"),
        ("x: 1\n" * 2_500_000, "larger than 256 KiB"),
        ("x: [" + "a," * 100_000 + "]", "more than 10000 values"),
        ("".join(f"unknown_key_{number}: 1\n" for number in range(4900)), "unknown_key_4899: unknown key"),
        ("? " + "a." * 100_000 + "\n: 1", "no key has more than"),
        ("x: " + "1" * 200_000, "more than 64 bits"),
        ("x: 1" + ":30" * 80_000, "unknown key"),
    ],
)  # fmt: skip
def test_no_file_takes_long(file, contents, message, capsys):
    file.write_text(contents)
    started = time.process_time()
    assert main(["check", str(file)]) == 1
    assert time.process_time() - started < SECONDS
    said = capsys.readouterr().err
    assert message in said and said.startswith(f"{file}:")


@pytest.mark.parametrize(
    "entry", ["{path: a.jsonl, type: alpaca}", "{path: a.jsonl, type: alpaca, no: 1}", "3"]
)
def test_many_datasets_do_not_take_long(file, entry):
    rest = yaml.safe_dump({name: item for name, item in CONFIG.items() if name != "datasets"})
    check(file, (rest + "datasets:\n" + f"  - {entry}\n" * 1200).encode())


def test_in_a_process_of_its_own_it_ends_with_1_and_the_line_at_fault(file):
    file.write_text("a: !!timestamp x\n")
    command = [sys.executable, "-m", "tunemill.pipelines.cli", "check", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and not done.stdout
    said = f"{file}:1:4: a: the tag !!timestamp has no meaning here; take it out\na: !!timestamp x\n   ^~~~~~~~~~~~~\n"
    assert said in done.stderr
