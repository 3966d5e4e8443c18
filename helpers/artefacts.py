"""Artefacts: what one lesson leaves for the next in the run folder, with its provenance. Knows files, not models.

An artefact is two files. The content is named by its own checksum. The manifest is named by the provenance: data,
classes, architecture, recipe, seed, versions, source code. So an artefact of another configuration is never found, and
two runs that share a folder cannot corrupt each other. A damaged file is noticed and made again.
"""

import hashlib
import importlib.metadata
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent
INSTALLED = (PACKAGE / "notebooks").is_dir()  # from a wheel, which holds the lessons within the package
# Their code decides an artefact.
MAKERS = ("artefacts", "backend", "cnn", "experiment", "images", "tasks", "training", "transfer")
CODE = {  # SHA-256 by module, taken at import: a kernel goes on with the code that it has loaded, whatever is edited
    path.relative_to(PACKAGE).with_suffix("").as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent.name != ".ipynb_checkpoints"  # JupyterLab's copies of what was opened in it
}
PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn")


def run_folder(run_dir: str = "runs/lessons") -> Path:
    """Return the run folder: `run_dir` below `$TRANSFER_TUTORIAL_HOME`, else below the repository, whatever the
    working directory; if there is none, as the course is installed from a wheel, below the working directory.

    Raises ValueError for a folder that cannot be written to, so that a lesson fails before its first training.
    """
    if not isinstance(run_dir, str) or not run_dir:
        raise ValueError(f'run_dir: {run_dir!r} is not a folder; give a path such as "runs/lessons"')
    folder = Path(os.environ.get("TRANSFER_TUTORIAL_HOME") or (Path.cwd() if INSTALLED else REPOSITORY)) / run_dir
    check_folder("run_dir", run_dir, folder)
    return folder


def check_folder(parameter: str, given: str, folder: Path) -> None:
    """Raise ValueError unless a folder can be written to, or could be once it is made; makes nothing itself."""
    try:
        str(folder).encode()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if there.is_dir():
            why = "" if os.access(there, os.W_OK | os.X_OK) else "cannot be written to"
        else:
            why = "is a file" if there == folder else f"is below a file, {there.name!r}"
    except UnicodeEncodeError:
        why = "is no UTF-8 text"  # and could not stand in a notebook
    except OSError as error:  # a name too long, a folder that may not be looked into
        why = f"cannot be used ({error.strerror})"
    if why:
        raise ValueError(f"{parameter}: {given!r} {why}; give a folder that can be written to; it need not exist yet")


@contextmanager
def lock(parameter: str, folder: Path) -> Iterator[None]:
    """Lock a folder for this process for the length of a block; raise ValueError if another process has locked it.

    The system locks the folder itself, so no file is left behind and the lock ends with the process. Without such a
    lock (Windows, some network drives) nobody is kept out, but files are still whole.
    """
    with ExitStack() as held:
        try:
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.callback(fcntl.flock, handle, fcntl.LOCK_UN)  # closing leaves it to a child that was forked meanwhile
        except BlockingIOError as error:
            raise ValueError(
                f"{parameter}: another process is at work in {str(folder)!r}; wait until it ends, or stop it first"
            ) from error
        except (ImportError, OSError):
            pass
        yield


def version(package: str) -> str:
    """Return the installed version of a package; TensorFlow is also distributed as tensorflow-cpu and the like."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    others = importlib.metadata.packages_distributions().get(package)
    return importlib.metadata.version(others[0]) if others else "unknown"


def provenance(**values: Any) -> dict[str, Any]:
    """Return what an artefact is made from: the given values, package versions, and the code that makes it."""
    code = checksum({module: CODE[module] for module in MAKERS})
    versions = {package: version(package) for package in PACKAGES}
    origin: dict[str, Any] = json.loads(json.dumps({**values, "versions": versions, "code": code}))
    return origin


def load(folder: Path, kind: str, origin: dict[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """Return the file of the artefact with this `provenance` and the facts stored with it, None if there is none.

    A damaged artefact counts as none; a warning names it.
    """
    path = _manifest_path(folder, kind, origin)
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
        warnings.warn(f"{path.name} or the file it describes is damaged; it is made again", stacklevel=2)
        return None
    return content, facts


def save(
    folder: Path, kind: str, origin: dict[str, Any], suffix: str, write: Callable[[Path], None], **facts: Any
) -> Path:
    """Store what `write(path)` writes, and facts about it; return the file's path. A reader sees all of it or nothing.

    `origin` is the artefact's `provenance`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as temporary:
        written = Path(temporary, f"content{suffix}")
        write(written)
        digest = sha256(written)
        content = folder / f"{kind}-{digest[:16]}{suffix}"
        _publish(written, content)
    manifest = {"file": content.name, "sha256": digest, "provenance": origin, "facts": facts}
    manifest = json.loads(json.dumps(manifest))  # as a reader gets it, for the checksum
    manifest["checksum"] = checksum(manifest)
    write_text(_manifest_path(folder, kind, origin), json.dumps(manifest, indent=1))
    return content


def save_results(folder: Path, lesson: str, rows: "pd.DataFrame") -> Path:
    """Save a lesson's result rows, one per training, as `results-<lesson>.csv` in the run folder; return the path.

    The command line sets `$TRANSFER_TUTORIAL_RESULTS` to another folder: runs that share a run folder keep their own
    rows.
    """
    path = Path(os.environ.get("TRANSFER_TUTORIAL_RESULTS") or folder) / f"results-{lesson}.csv"
    write_text(path, rows.assign(lesson=lesson).set_index("lesson").to_csv())
    return path


def read_results(tables: Iterable[Path | TextIO]) -> "pd.DataFrame":
    """Read tables of result rows as one, as text: no digit is lost. One that is empty, or damaged, is left out."""
    import pandas as pd

    found = []
    for table in tables:
        with suppress(ValueError):
            found.append(pd.read_csv(table, dtype=str, keep_default_na=False))
    return pd.concat(found or [pd.DataFrame(columns=["lesson"])], ignore_index=True).fillna("")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as temporary:
        written = Path(temporary, "text")
        written.write_text(text, encoding="utf-8")
        _publish(written, path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checksum(values: Any) -> str:
    """Return the SHA-256 of values as JSON, what JSON lacks as text."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _publish(temporary: Path, path: Path) -> None:
    """Put a finished file in its place: flushed to disk first, then renamed, which no reader can see half done."""
    with temporary.open("r+b") as stream:  # Windows flushes only what may be written to
        os.fsync(stream.fileno())
    temporary.replace(path)


def _manifest_path(folder: Path, kind: str, origin: dict[str, Any]) -> Path:
    return folder / f"{kind}-{checksum(origin)[:16]}.json"
