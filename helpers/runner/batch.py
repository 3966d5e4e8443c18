"""A run executes lessons headless, one after another, in a folder that records parameters, progress and versions."""

import json
import os
import platform
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import __version__, datasets, folders, provenance
from helpers.images import Dataset
from helpers.runner import notebooks, parameters
from helpers.runner.notebooks import THREADS, CellError, KernelSettings, Notebook
from helpers.runner.parameters import as_text
from helpers.runner.process import absolute
from helpers.store import sha256, write_text

PACKAGES = (*provenance.PACKAGES, "pandas", "pillow", "scipy", "matplotlib", "papermill", "nbconvert")


@dataclass(frozen=True)
class Run:
    """A run's folder, the content of its `run.json`, and notes for the user."""

    folder: Path
    record: dict[str, Any]
    notes: list[str]


def new(
    dataset: str | None,
    given: Sequence[tuple[str, str]],
    only: Sequence[str] | None,
    out: Path | None,
    make: bool = True,
) -> Run:
    """Check the lessons, the folder, the parameters (given as text) and their data; then make the folder.

    Without `only`, all lessons run. Without `out`, the folder is created in `runs/`; without `make`, no folder is
    created. Raises ValueError, DownloadError or OSError for invalid input.
    """
    values = parameters.read_given(given, dataset)
    for name in (*parameters.FOLDERS, "backbone_weights"):
        if datasets.is_path(values.get(name)):
            values[name] = absolute(values[name])
    folders.check_folder("--out", str(out or "runs"), (out or Path("runs")).absolute())
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise ValueError(f"--out: {str(out)!r} exists and is not an empty folder; choose a new folder")
    chosen = notebooks.lessons(only)
    try:
        loaded, notes = parameters.check(chosen, values), list[str]()
    except datasets.DownloadError as error:
        if error.parameter != "dataset" or "dataset" in values:
            raise
        values["dataset"] = "mnist_5k"
        loaded = parameters.check(chosen, values)
        notes = ["MNIST is not on this machine and cannot be downloaded: using 5,000 of its digits instead"]
    data = {name: _data(dataset) for name, dataset in loaded.items()}
    for name, facts in data.items():
        notes += [f"Note: {note}" for note in loaded[name].notes]
        if twice := facts["test images also in training"]:
            total = facts["test images"]
            notes.append(f"Note: {twice} of {total} test images are also training images, which inflates accuracy")
    texts = {**dict(given), **{name: value for name, value in values.items() if name == "dataset"}}
    record = {
        "status": "running",
        "parameters": values,
        **{name: data.get(name) for name in parameters.FOLDERS},
        "backbone": parameters.backbone(chosen, values),
        "notes": notes,
        "commands": [command(["run", "--only", ",".join(lesson.number for lesson in chosen)], texts)],
        "lessons": [_entry(lesson, values) for lesson in chosen],
    }
    record_made_with(record)
    name = Path(loaded["dataset"].name).stem if "dataset" in loaded else "run"
    folder = (out or Path("runs", f"{name}-{datetime.now():%Y%m%d-%H%M%S}")).absolute()
    if make and out is None:
        folder = _make_folder(folder)
    elif make:
        folder.mkdir(parents=True, exist_ok=True)
    return Run(folder, record, notes)


def resume(folder: Path) -> Run:
    """Return an earlier run to resume, after the same checks as for a new one; raise ValueError if it is unusable."""
    try:
        run = Run(folder.absolute(), json.loads((folder / "run.json").read_text(encoding="utf-8")), [])
        record, entries = run.record, run.record["lessons"]
        chosen = [notebooks.lesson(entry["name"]) for entry in entries]
        values = dict(record["parameters"])
        data = {name: record.get(name) for name in (*parameters.FOLDERS, "backbone")}
        done = [entry["status"] == "done" and _intact(run, entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"--resume: {str(folder)!r} has no usable run.json; give the folder of a run") from error
    now: dict[str, Any] = {name: _data(dataset) for name, dataset in parameters.check(chosen, values).items()}
    now["backbone"] = parameters.backbone(chosen, values)
    for name, facts in data.items():
        if facts != now.get(name):
            raise ValueError(f"--resume: {name} has changed since this run started with {facts}; start a new run")
    if record_made_with(record):
        run.notes.append(
            "Note: this run started with different versions or code, or on a different machine; run.json lists both"
        )
    for position, lesson in enumerate(chosen):
        if not done[position]:
            if entries[position]["status"] == "done":
                run.notes.append(
                    f"Note: the notebook or results of lesson {lesson.name} are damaged; the lesson will run again"
                )
            entries[position] = _entry(lesson, values)
    return run


def outline(run: Run) -> Iterator[str]:
    """Yield a line per lesson: its name, its status, and the parameters given to it."""
    given = run.record["parameters"]
    for entry in run.record["lessons"]:
        values = [f"{name}={as_text(given[name])}" for name in entry["parameters"] if name in given]
        yield " ".join([f"{entry['name']:25}", f"{entry['status']:8}", *values])


def execute(run: Run, received: list[int], timeout: int | None = None) -> str | None:
    """Execute the lessons that are not done; stop at the first failure and return the message about it.

    `received` contains the signals from `process.signals_as_exit`. A lesson fails if a cell takes longer than `timeout`
    seconds.
    """
    artefacts, lessons = str(run.folder / "artefacts"), run.record["lessons"]
    values = {"run_dir": artefacts, **run.record["parameters"]}
    settings = KernelSettings(environment={"TRANSFER_TUTORIAL_RESULTS": artefacts}, timeout=timeout)
    for position, entry in enumerate(lessons, start=1):
        if entry["status"] == "done":
            continue
        lesson, output, start = notebooks.lesson(entry["name"]), _notebook(run, entry), time.perf_counter()
        output.parent.mkdir(exist_ok=True)
        entry["status"] = "running"
        _save(run)
        known = notebooks.defaults(lesson.path)
        passed = {name: value for name, value in values.items() if name in known}
        try:
            notebooks.execute(lesson, output, passed, settings, f"{lesson.name} ({position} of {len(lessons)})")
            entry |= {"status": "done", "results": _results_checksum(run, entry)}
        except CellError as error:
            if received:  # not the lesson's fault: the kernel was killed, and SystemExit was lost
                raise SystemExit(128 + received[0]) from error
            entry |= {"status": "failed", "cell": error.cell, "error": str(error)}
            run.record["status"] = "failed"
            return f"lesson {lesson.name}, cell [{error.cell}]: {error}\nThe notebook up to this cell: {output}"
        finally:
            entry["seconds"] = round(time.perf_counter() - start, 1)
    run.record["status"] = "done"
    return None


def write_results(run: Run) -> pd.DataFrame:
    """Write `results.csv`: the rows of all finished lessons as text, one per training run; return the rows.

    Rows that a lesson takes from an earlier one, as lesson 06 does from 05, are listed only under the earlier one.
    """
    paths = [_results(run, entry) for entry in run.record["lessons"] if entry["status"] == "done"]
    rows = folders.read_results(path for path in paths if path.is_file())
    rows = rows[~rows.duplicated([name for name in rows if name != "lesson"])]  # identical, down to their times
    write_text(run.folder / "results.csv", rows.to_csv(index=False))
    return rows


@contextmanager
def recorded(run: Run) -> Iterator[None]:
    """Record the progress of a run in `run.json`, however the block ends."""
    try:
        run.record["status"] = "running"
        _save(run)
        yield
        _save(run)
    except BaseException as error:  # a signal, a full disk, a page that cannot be written
        run.record["status"] = status = "interrupted" if isinstance(error, SystemExit) else "failed"
        for entry in run.record["lessons"]:
            if entry["status"] == "running":
                entry["status"] = status
        with suppress(OSError):
            _save(run)
        raise


def _save(run: Run) -> None:
    write_text(run.folder / "run.json", json.dumps(run.record, indent=1))


def _notebook(run: Run, entry: dict[str, Any]) -> Path:
    return run.folder / "lessons" / f"{entry['name']}.ipynb"


def _results(run: Run, entry: dict[str, Any]) -> Path:
    return run.folder / "artefacts" / f"results-{entry['number']}.csv"


def _entry(lesson: Notebook, values: dict[str, Any]) -> dict[str, Any]:
    """Return the initial entry of `run.json` for a lesson; it lists `run_dir` only if the user chose it."""
    defaults = {name: value for name, value in notebooks.defaults(lesson.path).items() if name != "run_dir"}
    passed = {name: value for name, value in values.items() if name in defaults or name == "run_dir"}
    identity = {"number": lesson.number, "name": lesson.name, "title": lesson.title}
    return {**identity, "status": "not run", "parameters": {**defaults, **passed}}


def _intact(run: Run, entry: dict[str, Any]) -> bool:
    """Tell whether a lesson's notebook is readable and its result rows, if there are any, are unchanged."""
    readable = bool(notebooks.code_cells(_notebook(run, entry)))
    return readable and entry.get("results") == _results_checksum(run, entry)


def _results_checksum(run: Run, entry: dict[str, Any]) -> str | None:
    """Return the SHA-256 of a lesson's result rows, or None if there are none."""
    path = _results(run, entry)
    return sha256(path) if path.is_file() else None


def _make_folder(wanted: Path, count: int = 1) -> Path:
    """Make a new folder with this name, or with a number after it if the name is taken."""
    path = wanted if count == 1 else wanted.with_name(f"{wanted.name}-{count}")
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return _make_folder(wanted, count + 1)
    return path


def _data(dataset: Dataset) -> dict[str, Any]:
    """Return a dataset's name, fingerprint and sizes, and the number of test images that are also training images."""
    images = {"training images": len(dataset.train), "test images": len(dataset.test)}
    images["test images also in training"] = datasets.duplicated_images(dataset)
    return {"name": dataset.name, "sha256": dataset.fingerprint, **images}


def command(words: Sequence[str], given: Mapping[str, str]) -> str:
    """Return the shell command that repeats a command of `transfer-tutorial` with these parameters."""
    options = [word for pair in given.items() for word in ("-p", *pair)]
    return f"cd {shlex.quote(os.getcwd())} && {shlex.join(['transfer-tutorial', *words, *options])}"


def record_made_with(record: dict[str, Any]) -> bool:
    """Add date, versions, machine and commit to a record; if it has different ones, keep both and return True."""
    record.setdefault("started", datetime.now().astimezone().isoformat(timespec="seconds"))
    before, record["made_with"] = record.get("made_with"), _made_with()
    if changed := before not in (None, record["made_with"]):
        record.setdefault("made_with_before", []).append(before)
    return changed


def _made_with() -> dict[str, Any]:
    """Return what a run depends on besides its parameters and data: versions, machine and commit."""
    commit, processor = None, platform.processor() or platform.machine()
    if (folders.REPOSITORY / ".git").exists():
        command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        with suppress(OSError):  # no git on this machine
            own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # hooks set some
            ran = subprocess.run(command, cwd=folders.REPOSITORY, env=own, capture_output=True, text=True)
            commit = ran.stdout.strip() or None
    with suppress(OSError):  # on Linux, only /proc names the processor
        named = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
        processor = named[1] if named else processor
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    settings = {name: os.environ[name] for name in (*THREADS, "TF_ENABLE_ONEDNN_OPTS") if name in os.environ}
    versions = {name: provenance.version(name) for name in PACKAGES}
    return {
        "versions": {"tutorial": __version__, "python": platform.python_version(), **versions},
        "machine": {"system": platform.platform(), "processor": processor, "threads": threads, **settings},
        "commit": commit,
    }
