"""What this machine knows of a team's artifacts, in `<state>/elsewhere/<id>/`, so that looks ask for manifests alone.

artifacts/<stage>/<key>/seen.json                            the mark of the manifest that was read last, and its upload
artifacts/<stage>/<key>/<upload>/{manifest.json,key.json,data/}  what it said; damage.json where its files are damaged
sent/<stage>/<key>.json                                      what of this machine is there, or is on its way

Another machine may replace an artifact at any time. So what one manifest said lies in a folder of its own, which never
becomes that of another, and `seen.json` is replaced last: whoever has found an artifact fetches the files of that one.
"""

import atexit
import json
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tunemill.resources.folders import read_json, remove_tree, write_json
from tunemill.resources.object_types import Stored
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.published import Absent, Published
from tunemill.resources.team_entry import entry_from

SEEN_FILE, DAMAGE_FILE = "seen.json", "damage.json"


@dataclass(frozen=True)
class Notes:
    """The notes on the store at a URL, below the folder `kept`."""

    url: str
    kept: Path

    def mark(self, stage: str, key: str) -> str | None:
        """The mark of the manifest that was read last."""
        mark = self._seen(stage, key).get("mark")
        return mark if isinstance(mark, str) else None

    def known(self, stage: str, key: str) -> Published | Absent | None:
        """What that manifest says; None where it has to be read again."""
        seen = self._seen(stage, key)
        upload = seen.get("upload")
        if not isinstance(upload, str):
            return self._damaged("its manifest is damaged") if seen else None
        folder = self.folder(stage, key) / upload
        damage = read_json(folder / DAMAGE_FILE)
        if isinstance(damage, str):
            return self._damaged(damage)
        manifest = read_json(folder / "manifest.json")
        return Published(folder, manifest, upload) if isinstance(manifest, dict) else None

    def keep(self, stage: str, key: str, stored: Stored) -> Published | Absent:
        """Note what a manifest says. Where nothing can be written, it is known to this process."""
        known = self.known(stage, key) if self.mark(stage, key) == stored.mark else None
        if known is not None:
            return known
        try:
            return self._keep(self.folder(stage, key), stage, key, stored)
        except OSError:
            # A look needs no room, and no right to write.
            return self._keep(_spare() / stage / key, stage, key, stored)

    def _keep(self, place: Path, stage: str, key: str, stored: Stored) -> Published | Absent:
        entry = entry_from(stored.content, stage, key)
        seen = place / SEEN_FILE
        if entry is None:
            _write(seen, {"mark": stored.mark})
            return self._damaged("its manifest is damaged")
        folder = place / entry.upload
        _write(folder / "manifest.json", entry.manifest)
        _write(folder / "key.json", entry.key)
        _write(folder / "data" / LINEAGE_FILE, entry.lineage)
        _write(seen, {"mark": stored.mark, "upload": entry.upload})
        damage = read_json(folder / DAMAGE_FILE)
        return self._damaged(damage) if damage else Published(folder, entry.manifest, entry.upload)

    def key_document(self, stage: str, key: str) -> Any:
        """The key document of an artifact that was looked up."""
        upload = self._seen(stage, key).get("upload")
        return read_json(self.folder(stage, key) / upload / "key.json") if isinstance(upload, str) else None

    def refuse(self, published: Published, damage: str) -> None:
        """Take an artifact of the team for damaged; what is published in its place counts."""
        write_json(published.folder / DAMAGE_FILE, damage)
        self.forget_sent(published.stage, published.key)

    def sent(self, stage: str, key: str) -> Mapping[str, Any]:
        """What was noted of sending this machine's artifact of a key; nothing where it was not begun."""
        note = read_json(self._sent(stage, key))
        return note if isinstance(note, dict) else {}

    def note_sent(self, published: Published) -> None:
        """Nothing is to be done any more to send an artifact of this machine."""
        write_json(self._sent(published.stage, published.key), {"done": True, "digest": published.digest})

    def note_sending(self, published: Published, note: Mapping[str, Any]) -> None:
        """An upload has begun, or is to begin."""
        write_json(
            self._sent(published.stage, published.key), {**note, "done": False, "digest": published.digest}
        )

    def forget_sent(self, stage: str, key: str) -> None:
        """This machine may send its own."""
        self._sent(stage, key).unlink(missing_ok=True)

    def folder(self, stage: str, key: str) -> Path:
        return self.kept / "artifacts" / stage / key

    def _sent(self, stage: str, key: str) -> Path:
        return self.kept / "sent" / stage / f"{key}.json"

    def _seen(self, stage: str, key: str) -> dict[str, Any]:
        seen = read_json(self.folder(stage, key) / SEEN_FILE)
        return seen if isinstance(seen, dict) else {}

    def _damaged(self, why: str) -> Absent:
        return Absent(f"what {self.url} has is damaged: {why}", refused=True)


@cache
def _spare() -> Path:
    """A folder that goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="tunemill_notes_"))
    atexit.register(remove_tree, folder)
    return folder


def _write(path: Path, document: Any) -> None:
    """Replace a file as a whole. It may be lost with the power: then it is asked for again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{uuid.uuid4().hex}")
    beside.write_text(json.dumps(document))
    beside.replace(path)
