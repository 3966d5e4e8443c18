"""The run folder: what one lesson leaves for the next, with what it was made from. Knows files, not models.

An artefact is two files: the content, named by its own hash, and a manifest, named by what the content was made from
(data, classes, architecture, recipe, seed, versions, source code). So an artefact of another configuration is never
found, two runs that share a folder cannot corrupt each other, and a truncated or altered file is noticed and made
again.
"""

import hashlib
import importlib.metadata
import json
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
MAKERS = ("data", "cnn", "training", "transfer")  # the modules whose code decides what an artefact holds
CODE = {  # SHA-256 by module, taken at import: a kernel goes on with the code that it has loaded, whatever is edited
    path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(__file__).parent.glob("*.py"))
}
PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn")


def run_folder(run_dir: str = "runs/lessons") -> Path:
    """Return the run folder: `run_dir` below `$TRANSFER_TUTORIAL_HOME`, else below the repository, whatever the
    working directory. Raises ValueError for one that nothing could be written to, which a lesson would else notice
    after its first training.
    """
    if not isinstance(run_dir, str) or not run_dir:
        raise ValueError(f'run_dir: {run_dir!r} is not a folder; give a path such as "runs/lessons"')
    folder = Path(os.environ.get("TRANSFER_TUTORIAL_HOME") or REPOSITORY) / run_dir
    check_folder("run_dir", run_dir, folder)
    return folder


def check_folder(parameter: str, given: str, folder: Path) -> None:
    """Raise ValueError unless a folder can be written to, or could be once it is made; makes nothing itself."""
    try:
        there = next(path for path in (folder, *folder.parents) if _is_there(path))
        if there.is_dir():
            why = "" if os.access(there, os.W_OK | os.X_OK) else "cannot be written to"
        else:
            why = "is a file" if there == folder else f"is below a file, {there.name!r}"
    except OSError as error:  # a name too long, a folder that may not be looked into
        why = f"cannot be used ({error.strerror})"
    if why:
        raise ValueError(f"{parameter}: {given!r} {why}; give a folder that can be written to; it need not exist yet")


@contextmanager
def alone_in(parameter: str, folder: Path) -> Iterator[None]:
    """Keep a folder to this process for the length of a block; raise ValueError if another process has it.

    The lock is on the folder itself and the system's own: it leaves no file behind and ends with the process, however
    that ends. Where there is no such lock (Windows, some network drives) nobody is kept out; files are whole even so.
    """
    handle = None
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ValueError(
            f"{parameter}: another process is at work in {str(folder)!r}; wait until it ends, or stop it first"
        ) from error
    except (ImportError, OSError):
        pass
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)  # closing leaves it to a child that was forked meanwhile
            os.close(handle)


def made_from(**what: Any) -> dict[str, Any]:
    """Describe what an artefact is made from: the given values, the package versions, and the code of the modules
    that make it.
    """
    code = _seal({module: CODE[module] for module in MAKERS})
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return json.loads(json.dumps({**what, "versions": versions, "code": code}))


def load(folder: Path, kind: str, origin: dict[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """Return an artefact's file and the facts stored with it, or None if it was never made from exactly this, as
    `made_from` describes it.

    A damaged artefact is reported by name, in a warning, and counts as not there.
    """
    manifest = _manifest_path(folder, kind, origin)
    if not manifest.is_file():
        return None
    try:
        described = json.loads(manifest.read_text())
        seal = described.pop("seal")
        content = folder / described["file"]
        facts = described["facts"]
        intact = described["made_from"] == origin and seal == _seal(described)
        intact = intact and sha256(content) == described["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        warnings.warn(f"{manifest.name} or the file it describes is damaged; it is made again", stacklevel=2)
        return None
    return content, facts


def save(
    folder: Path, kind: str, origin: dict[str, Any], suffix: str, write: Callable[[Path], None], **facts: Any
) -> Path:
    """Store what `write(path)` writes, and facts about it, so that a reader sees all of it or nothing; return the
    file's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{kind}-{secrets.token_hex(8)}{suffix}"
    try:
        write(temporary)
        digest = sha256(temporary)
        content = folder / f"{kind}-{digest[:16]}{suffix}"
        _publish(temporary, content)
    finally:
        temporary.unlink(missing_ok=True)
    manifest = {"file": content.name, "sha256": digest, "made_from": origin, "facts": facts}
    manifest = json.loads(json.dumps(manifest))  # as a reader gets it, for the seal
    write_text(_manifest_path(folder, kind, origin), json.dumps({**manifest, "seal": _seal(manifest)}, indent=1))
    return content


def save_results(folder: Path, lesson: str, rows: pd.DataFrame) -> Path:
    """Leave a lesson's result rows, one per training, as `results-<lesson>.csv`: in the run folder, or in
    `$TRANSFER_TUTORIAL_RESULTS`, which the command line sets so that runs that share a run folder keep their own rows.
    """
    path = Path(os.environ.get("TRANSFER_TUTORIAL_RESULTS") or folder) / f"results-{lesson}.csv"
    write_text(path, rows.assign(lesson=lesson).set_index("lesson").to_csv())
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        temporary.write_text(text, encoding="utf-8")
        _publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_there(path: Path) -> bool:
    """Tell whether a path exists; unlike `Path.exists`, raise OSError for one that could not."""
    with suppress(FileNotFoundError, NotADirectoryError):
        path.stat()
        return True
    return False


def _publish(temporary: Path, path: Path) -> None:
    """Put a finished file in its place: flushed to disk first, then renamed, which no reader can see half done."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def _manifest_path(folder: Path, kind: str, origin: dict[str, Any]) -> Path:
    return folder / f"{kind}-{_seal(origin)[:16]}.json"


def _seal(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
