"""A real browser without a window, as a reader of our pages has one: Chromium of the system, steered by playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SIZE = {"width": 1440, "height": 900}
# Dagster greets whoever comes first with a dialog.
GREETED = "mutation{setNuxSeen}"


@dataclass
class Opened:
    """A page, what its console said that is an error, and every address that it asked for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def browser(*, dark: bool = False, scripts: bool = True) -> Iterator[Opened]:
    """A page of 1440x900. Skips the test where there is no Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            context = chromium.new_context(
                viewport=SIZE, color_scheme="dark" if dark else "light", java_script_enabled=scripts
            )
            opened = Opened(context.new_page())
            opened.page.on("console", lambda said: said.type == "error" and opened.errors.append(said.text))
            opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
            opened.page.on("request", lambda request: opened.requests.append(request.url))
            yield opened
        finally:
            chromium.close()


def picture(page: Any, file: Path, *, whole: bool = False) -> Path:
    """Write what the page shows, or all of it, as a PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(file), full_page=whole)
    return file
