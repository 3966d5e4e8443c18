"""The command line: `transfer-tutorial run` executes the lessons headless and leaves a folder with all that came out.

Whatever takes time to import is imported inside the commands, so that `--help` answers at once.
"""

import itertools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helpers import __version__

if TYPE_CHECKING:
    import pandas as pd

    from helpers.data import Dataset
    from helpers.lessons import Lesson

PACKAGES = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "scipy", "matplotlib", "papermill", "nbconvert")
COLUMNS = ("lesson", "task", "classes", "strategy", "labels_per_class", "seed", "updates", "test_accuracy")
THREAD_SETTINGS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_ENABLE_ONEDNN_OPTS")
FOLDER = click.Path(path_type=Path)


class BadInput(click.ClickException):
    """Something given cannot be; said in one line, before anything is run or written."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="transfer-tutorial")
def main() -> None:
    """Transfer learning by running the experiment properly: five notebooks, run as lessons or headless."""


@main.command()
@click.option("--dataset", metavar="NAME-OR-FILE", help="Data.  [default: mnist, or digits without it]")
@click.option("--only", metavar="LESSONS", help="Run these lessons only, such as 03,05.")
@click.option("-p", "given", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set a parameter; YAML.")
@click.option("--out", type=FOLDER, metavar="DIR", help="New folder.  [default: runs/<dataset>-<date>-<time>]")
@click.option("--resume", type=FOLDER, metavar="DIR", help="Go on with an interrupted or failed run.")
def run(
    dataset: str | None, only: str | None, given: tuple[tuple[str, str], ...], out: Path | None, resume: Path | None
) -> None:
    """Run the lessons headless, with their parameters as given, into a new folder.

    It holds the executed notebooks, an index.html to look at, results.csv with one row per training, and run.json.
    """
    with _signals_as_exit() as received:
        from helpers.data import DownloadError

        if "MNIST_NPZ" in os.environ:
            os.environ["MNIST_NPZ"] = _absolute(os.environ["MNIST_NPZ"])
        try:
            if resume is None:
                folder, record = _new_run(dataset, only, given, out)
            elif dataset or only or given or out:
                raise ValueError("--resume: takes everything from the run that it goes on with; give no other option")
            else:
                folder, record = _old_run(resume.absolute())
        except (ValueError, DownloadError, OSError) as error:
            raise BadInput(str(error)) from error
        _run_lessons(folder, record, received)


def _new_run(
    dataset: str | None, only: str | None, given: tuple[tuple[str, str], ...], out: Path | None
) -> tuple[Path, dict[str, Any]]:
    """Check everything that was given, then make the folder; return it with the record that `run.json` keeps."""
    from helpers import data, lessons

    wanted = lessons.lessons() if only is None else {lessons.lesson(number.strip()) for number in only.split(",")}
    chosen = sorted(wanted, key=lambda lesson: lesson.number)
    values = {name: _read(name, text) for name, text in given}
    if dataset is not None and values.setdefault("dataset", dataset) != dataset:
        raise ValueError(f"dataset: given twice, as {dataset!r} and {values['dataset']!r}")
    if isinstance(values.get("dataset"), str):
        values["dataset"] = _absolute(values["dataset"])
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out: {str(out)!r} exists and is not an empty folder; give a new one")
    try:
        loaded = lessons.check_parameters(chosen, values)
    except data.DownloadError:
        if "dataset" in values:
            raise
        values["dataset"] = "digits"
        loaded = lessons.check_parameters(chosen, values)
        click.echo("MNIST is not on this machine and cannot be downloaded: running on the embedded digits")
    record = {
        "status": "running",
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "parameters": values,
        "dataset": _described(loaded),
        "made_with": _made_with(),
        "lessons": [_entry(lesson, values) for lesson in chosen],
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        return out.absolute(), record
    name = Path(loaded.name).stem if loaded else "run"
    return _make_folder(Path.cwd() / "runs" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"), record


def _old_run(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the record of a run that is to go on, after the checks that a new run gets."""
    from helpers import lessons

    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        chosen = [lessons.lesson(entry["name"]) for entry in record["lessons"]]
        values, known, before = record["parameters"], record["dataset"], record["made_with"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"--resume: {str(folder)!r} holds no run.json of a run that could go on") from error
    if known != _described(lessons.check_parameters(chosen, values)):
        raise ValueError(f"--resume: dataset is not the one that this run started with, {known}; start a new run")
    record["made_with"] = _made_with()
    if record["made_with"] != before:
        click.echo("Note: versions, code or machine changed since this run started; run.json keeps both")
        record.setdefault("made_with_before", []).append(before)
    for position, (lesson, entry) in enumerate(zip(chosen, record["lessons"], strict=True)):
        if entry["status"] != "done" or not _notebook(folder, entry).is_file():
            record["lessons"][position] = _entry(lesson, values)
    return folder, record


def _run_lessons(folder: Path, record: dict[str, Any], received: list[int]) -> None:
    """Execute the lessons that are not done, up to the first that fails; then write and print the results."""
    from helpers import lessons

    values = {"run_dir": str(folder / "artefacts"), **record["parameters"]}
    failed = None
    try:
        record["status"] = "running"
        _save(folder, record)
        for position, entry in enumerate(record["lessons"], start=1):
            if entry["status"] == "done":
                continue
            lesson, output, start = lessons.lesson(entry["name"]), _notebook(folder, entry), time.perf_counter()
            output.parent.mkdir(exist_ok=True)
            entry["status"] = "running"
            _save(folder, record)
            passed = {name: value for name, value in values.items() if name in lessons.parameters(lesson.path)}
            try:
                lessons.execute(lesson, output, passed, f"{lesson.name} ({position} of {len(record['lessons'])})")
                entry["status"] = "done"
            except lessons.LessonError as error:
                if received:  # not the lesson's fault: the signal's exit was lost on its way, the kernel was not
                    raise SystemExit(128 + received[0]) from error
                entry |= {"status": "failed", "cell": error.cell, "error": str(error)}
                failed = f"lesson {lesson.name}, cell [{error.cell}]: {error}\nThe notebook up to there: {output}"
                break
            finally:
                entry["seconds"] = round(time.perf_counter() - start, 1)
        record["status"] = "failed" if failed else "done"
        _save(folder, record)
        _finish(folder, record, values)
        if failed:
            raise click.ClickException(failed)
    except SystemExit:
        for entry in record["lessons"]:
            if entry["status"] == "running":
                entry["status"] = "interrupted"
        record["status"] = "interrupted"
        _save(folder, record)
        click.echo(f"\nInterrupted. To go on: transfer-tutorial run --resume '{folder}'", err=True)
        raise


def _finish(folder: Path, record: dict[str, Any], values: dict[str, Any]) -> None:
    """Write `results.csv` and the pages; print the result table and where to look."""
    from helpers import report, runs

    results = _results(runs.run_folder(values["run_dir"]), record)
    runs.write_text(folder / "results.csv", results.to_csv(index=False))
    index = report.write(folder, record, results)
    if len(results):
        click.echo("\nMean test accuracy in percent, by labels per class:\n")
        click.echo(report.result_table(results).to_string(index=False))
    click.echo(f"\nOpen {index}")


def _results(artefacts: Path, record: dict[str, Any]) -> "pd.DataFrame":
    """Return the result rows of the lessons that are done, one per training, each value as the text in its file."""
    import pandas as pd

    paths = [artefacts / f"results-{entry['number']}.csv" for entry in record["lessons"] if entry["status"] == "done"]
    tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths if path.is_file()]
    return pd.concat(tables, ignore_index=True).fillna("") if tables else pd.DataFrame(columns=list(COLUMNS))


def _read(name: str, text: str) -> Any:
    """Read a parameter's value: JSON, which knows 1e-3 as a number, else YAML, which knows words without quotes."""
    import yaml

    with suppress(ValueError):
        return json.loads(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: {text!r} cannot be read as YAML; values look like 3, adam or [0, 1, 2]") from error


def _absolute(name: str) -> str:
    """Return the absolute path if this names a file: kernels and `--resume` may start in another folder."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.is_file() else name


def _make_folder(wanted: Path) -> Path:
    """Make a new folder under this name, or with a number behind it where that is taken."""
    for count in itertools.count(1):
        path = wanted if count == 1 else wanted.with_name(f"{wanted.name}-{count}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path


def _entry(lesson: "Lesson", values: dict[str, Any]) -> dict[str, Any]:
    """Return what `run.json` says of a lesson before it runs; `run_dir` only where the user chose it."""
    from helpers import lessons

    defaults = {name: found.default for name, found in lessons.parameters(lesson.path).items() if name != "run_dir"}
    passed = {name: value for name, value in values.items() if name in defaults or name == "run_dir"}
    identity = {"number": lesson.number, "name": lesson.name, "title": lesson.title}
    return {**identity, "status": "not run", "parameters": {**defaults, **passed}}


def _described(dataset: "Dataset | None") -> dict[str, Any] | None:
    """Return what identifies the data of a run."""
    if dataset is None:
        return None
    images = {"training images": len(dataset.train), "test images": len(dataset.test)}
    return {"name": dataset.name, "sha256": dataset.fingerprint, **images}


def _made_with() -> dict[str, Any]:
    """Return versions, machine and commit: what a run depends on beside its parameters and data."""
    import platform
    import subprocess
    from importlib import metadata

    from helpers.runs import REPOSITORY

    commit, processor = None, platform.processor() or platform.machine()
    if (REPOSITORY / ".git").exists():
        command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        with suppress(OSError):  # no git on this machine
            commit = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip() or None
    with suppress(OSError, TypeError):  # Linux's own processor names are empty, its /proc says more
        processor = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())[1]
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    settings = {name: os.environ[name] for name in THREAD_SETTINGS if name in os.environ}
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "versions": {"tutorial": __version__, "python": platform.python_version(), **versions},
        "machine": {"system": platform.platform(), "processor": processor, "threads": threads, **settings},
        "commit": commit,
    }


def _notebook(folder: Path, entry: dict[str, Any]) -> Path:
    return folder / "lessons" / f"{entry['name']}.ipynb"


def _save(folder: Path, record: dict[str, Any]) -> None:
    from helpers.runs import write_text

    write_text(folder / "run.json", json.dumps(record, indent=1))


@contextmanager
def _signals_as_exit() -> Iterator[list[int]]:
    """Turn Ctrl-C and SIGTERM into SystemExit with the exit code that shells expect, 130 or 143, and kill the kernel.

    SystemExit passes through asyncio, nbclient and papermill, which saves the notebook on its way. Yields the list of
    signals received.
    """
    import psutil

    def stop(number: int, frame: object) -> None:
        received.append(number)
        for each in signals:  # a second Ctrl-C shall not break what saves the work
            signal.signal(each, signal.SIG_IGN)
        children = psutil.Process().children(recursive=True)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=3)
        sys.exit(128 + number)

    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, stop) for each in signals}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
