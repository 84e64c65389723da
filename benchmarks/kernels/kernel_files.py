"""Which kernels there are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def kernel_names() -> list[str]:
    """Every file of the repository's kernels that has a reference; each has a benchmark file of its name."""
    sources = sorted((ROOT / "kernels" / "functions").glob("*.py"))
    return [path.stem for path in sources if "\ndef reference(" in path.read_text(encoding="utf-8")]
