"""Plugins of one's own, as a user would write them, and the settings that name them."""

import shutil
from pathlib import Path
from typing import Any

OWN = Path(__file__).parent / "own"
FILES = [str(OWN / name) for name in ("own_plugin.py", "helpers.py")]
OTHER = [str(OWN / "other" / "own_plugin.py")]
TRAINER = [str(OWN / "own_trainer.py")]
OTHER_TRAINER = [str(OWN / "other" / "own_trainer.py")]


def plugged(folder: Path, *names: str, text: str | None = None, **settings: Any) -> dict[str, Any]:
    """The fields of a config that name classes of `own_plugin.py` in a folder, with the values of their keys."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [shutil.copy(file, folder) for file in FILES]
    if text is not None:
        Path(files[0]).write_text(text)
    return {
        "plugins": [f"own_plugin.{name}" for name in names],
        "plugin_code": files,
        "plugin_settings": settings,
    }
