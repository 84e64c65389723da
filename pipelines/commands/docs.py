"""`tunemill docs`: the documentation in the terminal, for people and for coding agents."""

import argparse
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tunemill.pipelines.commands.options import add_command

OVERVIEW = """\
Tunemill turns one YAML with Axolotl's keys into a graph of cached stages: raw rows -> tokens -> training -> merged ->
quantized -> evaluated. A result is found by the hash of what went into it, so a command computes only what is not
there. check, plan and run take the same YAML; most commands take --json.
"""
# What Axolotl's own pages for agents are called.
ALSO = {
    "preference_tuning": "methods",
    "reward_modelling": "rewards",
    "pretraining": "data",
    "config": "keys",
}
HEADING = re.compile(r"(#{1,6}) (.*)")
FENCE = "```"
MOST_LINES, LONGEST_LINE = 40, 200


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "docs", docs, text)
    parser.add_argument(
        "topic", nargs="?", help="a page, a word of a heading, or PAGE#WORD; without one: an overview"
    )
    parser.add_argument("--list", action="store_true", help="only the names of the pages and their titles")


def docs(options: argparse.Namespace) -> int:
    """Print what is asked for. Raises UserError where nothing is called so."""
    # Only here: whoever asks for help waits for nothing else.
    from tunemill.pipelines.commands.package_files import pages

    found = pages()
    if options.list or options.topic is None:
        if not options.list:
            print(OVERVIEW)
            print(
                "Pages, printed by `tunemill docs PAGE`; `tunemill docs WORD` prints the parts under such a heading:"
            )
        width = max(map(len, found))
        for name, text in found.items():
            print(f"{name:{width}}  {title_of(text)}")
        return 0
    print(text_on(options.topic, found), end="")
    return 0


def title_of(page: str) -> str:
    """Its first heading."""
    return next((title for level, title, _ in sections(page) if level), "")


def text_on(topic: str, found: Mapping[str, str]) -> str:
    """A page, or the parts of pages whose headings have the word, each with its page's name before it.

    Where no heading has it, the lines that do. Raises UserError that names the nearest page where none has.
    """
    page, _, word = topic.strip().lower().removesuffix(".md").partition("#")
    page = page.replace("_", "-") if page.replace("_", "-") in found else page
    page = page if page in found else ALSO.get(page, page)
    if page in found and not word:
        return found[page]
    chosen = {page: found[page]} if page in found else found
    parts = [
        f"<!-- {name} -->\n{body.rstrip()}\n"
        for name, text in chosen.items()
        for body in _parts_on(word or page, text)
    ]
    if parts:
        return "\n".join(parts)
    lines = [line for name, text in chosen.items() for line in _lines_with(word or page, name, text)]
    if lines:
        more = [f"and {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
        said = (
            f"No heading is called {word or page}. It stands in these lines, each with its page and heading:"
        )
        return "\n".join([said, *lines[:MOST_LINES], *more]) + "\n"
    from tunemill.stages.choices import nearest
    from tunemill.stages.errors import UserError

    near = nearest(page, [*found, *ALSO])
    meant = f"; did you mean {near[0]}?" if near else "."
    raise UserError(f"{topic}: no page and no heading is called so{meant} The pages are {', '.join(found)}")


def _lines_with(word: str, name: str, page: str) -> Iterator[str]:
    """The lines in which it stands, cut, each with its page and heading."""
    for _, title, body in sections(page):
        for line in body.splitlines():
            if _wanted(word).search(_plain(line)):
                cut = line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"
                yield f"{name}#{title}: {cut.strip()}"


def _wanted(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9]){re.escape(_plain(word))}(?![a-z0-9])")


def _plain(text: str) -> str:
    return re.sub("[-_]", " ", text.lower())


def _parts_on(word: str, page: str) -> Iterator[str]:
    """The parts below headings with the word; of one inside another only the outer."""
    inside = 0
    wanted = _wanted(word)
    lines: list[str] = []
    for level, title, body in sections(page):
        if inside and level > inside:
            lines.append(body)
            continue
        if lines:
            yield "".join(lines)
        inside, lines = 0, []
        # The title of a page is a name of all of it.
        if level > 1 and wanted.search(_plain(title)):
            inside, lines = level, [body]
    if lines:
        yield "".join(lines)


def sections(page: str) -> list[tuple[int, str, str]]:
    """Level (0 before the first), title and text of each heading with what stands directly below it."""
    found: list[tuple[int, str, str]] = [(0, "", "")]
    fenced = False
    for line in page.splitlines(keepends=True):
        fenced ^= line.startswith(FENCE)
        heading = None if fenced else HEADING.match(line)
        if heading:
            found.append((len(heading[1]), heading[2].strip(), line))
        else:
            level, title, text = found[-1]
            found[-1] = (level, title, text + line)
    return found
