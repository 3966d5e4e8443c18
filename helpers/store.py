"""A store: make something once, save it with its provenance, and find it again. It knows files, not models.

Each entry consists of two files: the content, named by its own checksum, and the manifest, named by the checksum of the
provenance: data, classes, architecture, recipe, seed, versions, code. So nothing with a different provenance is ever
found, and two runs that share a folder cannot corrupt each other's files. Damaged files are detected and made again.
"""

import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

Facts = dict[str, Any]  # about the content, in JSON's types


def load_or_make(
    folder: Path,
    name: str,
    origin: dict[str, Any],
    make: Callable[[Path], Facts],
    suffices: Callable[[Facts], bool] = lambda facts: True,
) -> tuple[Path, Facts]:
    """Return the file saved under a name with this `provenance`, and the facts about it; make it first if necessary.

    `name` ends in the content's suffix, as in "pretrained.weights.h5". `make(path)` writes the content and returns its
    facts. A saved file is made again if it is damaged or if `suffices` rejects its facts. A reader sees the whole file
    or none, even if two processes make the same file.
    """
    kept = find(folder, name, origin)
    if kept and suffices(kept[1]):
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    kind, dot, suffix = name.partition(".")
    written = folder / f".{uuid.uuid4().hex}{dot}{suffix}"
    try:
        facts = make(written)
        digest = sha256(written)
        content = folder / f"{kind}-{digest[:16]}{dot}{suffix}"
        _publish(written, content)
    finally:
        written.unlink(missing_ok=True)
    manifest = {"file": content.name, "sha256": digest, "provenance": origin, "facts": facts}
    manifest = json.loads(json.dumps(manifest))  # as it will be read back, for the checksum
    manifest["checksum"] = checksum(manifest)
    write_text(_manifest_path(folder, kind, origin), json.dumps(manifest, indent=1))
    return content, manifest["facts"]


def find(folder: Path, name: str, origin: dict[str, Any]) -> tuple[Path, Facts] | None:
    """Return the entry that `load_or_make` saved, or None. Damaged files count as missing, with a warning."""
    path = _manifest_path(folder, name.partition(".")[0], origin)
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text())
        recorded = manifest.pop("checksum")
        content = folder / manifest["file"]
        facts = manifest["facts"]
        intact = manifest["provenance"] == origin and recorded == checksum(manifest)
        intact = intact and sha256(content) == manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        warnings.warn(f"{path.name} or the file it describes is damaged; creating it again", stacklevel=2)
        return None
    return content, facts


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{uuid.uuid4().hex}")
    try:
        written.write_text(text, encoding="utf-8")
        _publish(written, path)
    finally:
        written.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checksum(values: Any) -> str:
    """Return the SHA-256 of values written as JSON; values of types that JSON lacks become text."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _publish(temporary: Path, path: Path) -> None:
    """Put a finished file in its place: flush it to disk, then rename it, so that no reader sees half of it."""
    with temporary.open("r+b") as stream:  # Windows flushes only files opened for writing
        os.fsync(stream.fileno())
    temporary.replace(path)


def _manifest_path(folder: Path, kind: str, origin: dict[str, Any]) -> Path:
    return folder / f"{kind}-{checksum(origin)[:16]}.json"
