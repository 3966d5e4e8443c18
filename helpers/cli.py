"""The command line: `transfer-tutorial run` executes the lessons headless and leaves a folder with all that came out;
`transfer-tutorial sweep` executes one of them over a grid of parameters.

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
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helpers import __version__

if TYPE_CHECKING:
    import pandas as pd

    from helpers.data import Dataset
    from helpers.lessons import Lesson
    from helpers.sweep import Sweep

PACKAGES = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "scipy", "matplotlib", "papermill", "nbconvert")
COLUMNS = ("lesson", "task", "classes", "strategy", "labels_per_class", "seed", "updates", "test_accuracy")
FOLDER = click.Path(path_type=Path)


class BadInput(click.ClickException):
    """Something given cannot be; said in one line, before anything is run or written."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="transfer-tutorial")
def main() -> None:
    """Transfer learning by running the experiment properly: five notebooks, run as lessons or headless."""
    if os.environ.get("MNIST_NPZ"):
        os.environ["MNIST_NPZ"] = _absolute(os.environ["MNIST_NPZ"])


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
    with _signals_as_exit() as received, ExitStack() as held:
        from helpers.data import DownloadError
        from helpers.runs import alone_in

        try:
            if resume is None:
                folder, record = _new_run(dataset, only, given, out)
                held.enter_context(alone_in("--out", folder))
            elif dataset or only or given or out:
                raise ValueError("--resume: takes everything from the run that it goes on with; give no other option")
            else:
                held.enter_context(alone_in("--resume", resume))
                folder, record = _old_run(resume.absolute())
        except (ValueError, DownloadError, OSError) as error:
            raise BadInput(str(error)) from error
        _run_lessons(folder, record, received)


@main.command()
@click.argument("notebook", metavar="LESSON")
@click.option(
    "--grid", "swept", multiple=True, metavar="NAME=V1,V2,...", help="Sweep over values of a parameter; YAML."
)
@click.option("-p", "given", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set it in all runs; YAML.")
@click.option("--out", type=FOLDER, required=True, metavar="DIR", help="New folder, or this sweep's to go on with it.")
@click.option("--scheduler", metavar="ADDRESS", help="Run on this Dask cluster.  [default: on this machine]")
@click.option(
    "--workers", type=click.IntRange(1), metavar="N", help="Runs at a time here.  [default: as cores and memory allow]"
)
@click.option("--retries", type=click.IntRange(0), default=0, metavar="K", help="Repeat a run that fails, K times.")
@click.option("--timeout", type=click.IntRange(1), metavar="SECONDS", help="Fail a run if a cell takes longer.")
@click.option("--dry-run", is_flag=True, help="Print the table of runs and run nothing.")
@click.option("--yes", is_flag=True, help="Allow more than 10,000 runs.")
def sweep(
    notebook: str,
    swept: tuple[str, ...],
    given: tuple[tuple[str, str], ...],
    out: Path,
    scheduler: str | None,
    workers: int | None,
    retries: int,
    timeout: int | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Run one lesson, or a notebook of your own by its path, once for each combination of values in a grid.

    DIR gets the executed notebooks, results.csv with the parameters as columns, and sweep.html to look at. The same
    command again runs what is missing or failed.
    """
    with _signals_as_exit(kill_children=False):  # Dask stops its own
        from helpers import lessons, runs, sweep
        from helpers.data import DownloadError

        try:
            _check_sweep_options(scheduler, workers)
            values = {name: _read(name, text) for name, text in given}
            planned = sweep.plan(lessons.notebook(notebook), _read_grid(swept), values, out.absolute(), yes)
            runs.check_folder("--out", str(out), planned.out)
        except (ValueError, DownloadError, OSError) as error:
            raise BadInput(str(error)) from error
        before, missing = sweep.records(planned), len(sweep.missing(planned))
        click.echo(f"{planned.lesson.name}: {len(planned.runs)} runs, {len(planned.runs) - missing} of them done")
        if missing:
            click.echo(_estimate(before, missing))
        if dry_run:
            click.echo(_table_of_runs(planned, before))
            return
        try:
            if missing:
                _run_sweep(planned, scheduler, workers, retries, timeout)
        except ValueError as error:
            raise BadInput(str(error)) from error
        except OSError as error:  # the scheduler is gone, the disk is full
            with suppress(OSError):
                _finish_sweep(planned)
            raise click.ClickException(f"{error}; the same command goes on") from error
        except SystemExit:
            _finish_sweep(planned)
            click.echo("\nInterrupted. The same command goes on", err=True)
            raise
        failed = _finish_sweep(planned)
        if failed:
            first = failed[0]
            raise click.ClickException(
                f"{len(failed)} of {len(planned.runs)} runs failed, {first['name']}: {first['error']}"
            )


def _new_run(
    dataset: str | None, only: str | None, given: tuple[tuple[str, str], ...], out: Path | None
) -> tuple[Path, dict[str, Any]]:
    """Check everything that was given, then make the folder; return it with the record that `run.json` keeps."""
    from helpers import data, lessons, runs

    wanted = lessons.lessons() if only is None else {lessons.lesson(number.strip()) for number in only.split(",")}
    chosen = sorted(wanted, key=lambda lesson: lesson.number)
    values = {name: _read(name, text) for name, text in given}
    if dataset is not None and values.setdefault("dataset", dataset) != dataset:
        raise ValueError(f"dataset: given twice, as {dataset!r} and {values['dataset']!r}")
    if isinstance(values.get("dataset"), str) and values["dataset"].endswith(".npz"):
        values["dataset"] = _absolute(values["dataset"])
    runs.check_folder("--out", str(out or "runs"), (out or Path("runs")).absolute())
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise ValueError(f"--out: {str(out)!r} exists and is not an empty folder; give a new one")
    try:
        loaded = lessons.check_parameters(chosen, values)
    except data.DownloadError:
        if "dataset" in values:
            raise
        values["dataset"] = "digits"
        loaded = lessons.check_parameters(chosen, values)
        click.echo("MNIST is not on this machine and cannot be downloaded: running on the embedded digits")
    described = _described(loaded)
    if described and (twice := described["test images also in training"]):
        click.echo(f"Note: {twice} of {len(loaded.test)} test images are training images too; test accuracy flatters")
    record = {
        "status": "running",
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "parameters": values,
        "dataset": described,
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
        values, known, before = dict(record["parameters"]), record["dataset"], record["made_with"]
        done = [entry["status"] == "done" and _intact(folder, entry) for entry in record["lessons"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"--resume: {str(folder)!r} holds no run.json of a run that could go on") from error
    if known != _described(lessons.check_parameters(chosen, values)):
        raise ValueError(f"--resume: dataset is not the one that this run started with, {known}; start a new run")
    record["made_with"] = _made_with()
    if record["made_with"] != before:
        click.echo("Note: versions, code or machine changed since this run started; run.json keeps both")
        record.setdefault("made_with_before", []).append(before)
    for position, lesson in enumerate(chosen):
        if not done[position]:
            if record["lessons"][position]["status"] == "done":
                click.echo(f"Note: notebook or results of lesson {lesson.name} are damaged; the lesson is run again")
            record["lessons"][position] = _entry(lesson, values)
    return folder, record


def _intact(folder: Path, entry: dict[str, Any]) -> bool:
    """Tell whether a lesson's notebook can be read and its result rows, if it left any, are those that it left."""
    from helpers import lessons

    return bool(lessons.code_cells(_notebook(folder, entry))) and entry.get("results") == _results_of(folder, entry)


def _results_of(folder: Path, entry: dict[str, Any]) -> str | None:
    """Return the SHA-256 of a lesson's result rows, None if there are none."""
    from helpers.runs import sha256

    path = _result_file(folder, entry)
    return sha256(path) if path.is_file() else None


def _run_lessons(folder: Path, record: dict[str, Any], received: list[int]) -> None:
    """Execute the lessons that are not done, up to the first that fails; then write and print the results."""
    from helpers import lessons

    values = {"run_dir": str(folder / "artefacts"), **record["parameters"]}
    failed, go_on = None, f"\nTo go on: transfer-tutorial run --resume '{folder}'"
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
                label = f"{lesson.name} ({position} of {len(record['lessons'])})"
                results = {"TRANSFER_TUTORIAL_RESULTS": str(folder / "artefacts")}
                lessons.execute(lesson, output, passed, label, environment=results)
                entry |= {"status": "done", "results": _results_of(folder, entry)}
            except lessons.LessonError as error:
                if received:  # not the lesson's fault: the signal's exit was lost on its way, the kernel was not
                    raise SystemExit(128 + received[0]) from error
                entry |= {"status": "failed", "cell": error.cell, "error": str(error)}
                failed = (
                    f"lesson {lesson.name}, cell [{error.cell}]: {error}\nThe notebook up to there: {output}{go_on}"
                )
                break
            finally:
                entry["seconds"] = round(time.perf_counter() - start, 1)
        record["status"] = "failed" if failed else "done"
        _finish(folder, record)
        _save(folder, record)
    except SystemExit:
        _save_stopped(folder, record, "interrupted")
        click.echo(f"\nInterrupted.{go_on}", err=True)
        raise
    except Exception as error:  # a full disk, a page that cannot be written
        _save_stopped(folder, record, "failed")
        raise click.ClickException(f"{type(error).__name__}: {error}{go_on}") from error
    if failed:
        raise click.ClickException(failed)


def _save_stopped(folder: Path, record: dict[str, Any], status: str) -> None:
    """Keep, if the disk lets us, that a run did not come to its end, nor the lesson that was running."""
    record["status"] = status
    for entry in record["lessons"]:
        if entry["status"] == "running":
            entry["status"] = status
    with suppress(OSError):
        _save(folder, record)


def _finish(folder: Path, record: dict[str, Any]) -> None:
    """Write `results.csv` and the pages; print the result table and where to look."""
    from helpers import report, runs

    results = _results(folder, record)
    runs.write_text(folder / "results.csv", results.to_csv(index=False))
    index = report.write(folder, record, results)
    if len(results):
        click.echo("\nMean test accuracy in percent, by labels per class:\n")
        click.echo(report.result_table(results).to_string(index=False))
    click.echo(f"\nOpen {index}")


def _check_sweep_options(scheduler: str | None, workers: int | None) -> None:
    """Refuse options that do not go together, and a machine without Dask."""
    from importlib.util import find_spec

    if scheduler is not None and workers is not None:
        raise ValueError("--workers: is for this machine; a cluster, as given by --scheduler, has its own")
    if not (find_spec("distributed") and find_spec("cryptography")):
        raise ValueError('sweep: needs more than is installed; python -m pip install -e ".[sweep]" adds it')


def _read_grid(swept: tuple[str, ...]) -> dict[str, list[Any]]:
    """Read `NAME=V1,V2,...`: the values are the entries of a list, so that lists among them keep their commas."""
    grid = {}
    for text in swept:
        name, equals, values = text.partition("=")
        if not equals:
            raise ValueError(f"--grid: {text!r} is not of the form NAME=V1,V2,...")
        if name in grid:
            raise ValueError(f"{name}: --grid is given twice for it; give all values at once")
        grid[name] = _read(name, f"[{values}]")
    return grid


def _estimate(records: list[dict[str, Any]], missing: int) -> str:
    """Say how long the missing runs will take, as far as it is known."""
    seconds = [record["seconds"] for record in records if record["status"] == "done"]
    if not seconds:
        return "Estimate: none before the first run has finished; the bar shows it then"
    mean = sum(seconds) / len(seconds)
    return f"Estimate: {missing * mean / 60:.1f} minutes, {mean:.1f} s a run, divided by the runs at a time"


def _run_sweep(planned: "Sweep", scheduler: str | None, workers: int | None, retries: int, timeout: int | None) -> None:
    """Execute the runs that are missing, with a progress bar."""
    from tqdm import tqdm

    from helpers import sweep
    from helpers.runs import alone_in

    free = {"environment": {}, "memory": None}  # a cluster has its own settings
    workers, settings = (workers, free) if scheduler else sweep.local_settings(workers)
    with sweep.connect(scheduler, workers) as client:
        planned.out.mkdir(parents=True, exist_ok=True)
        with alone_in("--out", planned.out):
            missing, failed = sweep.missing(planned), 0  # known for sure only now
            places = sum(client.nthreads().values())
            click.echo(f"{len(missing)} to run, {places} at a time; Dask's dashboard: {client.dashboard_link}")
            with tqdm(total=len(missing), unit="run") as bar:
                for record in sweep.execute(client, planned, missing, retries, {**settings, "timeout": timeout}):
                    failed += record["status"] == "failed"
                    bar.set_postfix(finished=bar.n + 1 - failed, failed=failed, refresh=False)
                    bar.update()


def _finish_sweep(planned: "Sweep") -> list[dict[str, Any]]:
    """Write `results.csv` and the page and print where to look; return the records of this grid's failed runs."""
    from helpers import report, runs, sweep

    if not (planned.out / "sweep.json").is_file():
        return []  # stopped before the first run began
    records, results = sweep.records(planned), sweep.results(planned)
    runs.write_text(planned.out / "results.csv", results.to_csv(index=False))
    click.echo(f"\nOpen {report.write_sweep(planned, records, results)}")
    return [record for record in records if record["status"] == "failed" and record["name"] in planned.runs]


def _table_of_runs(planned: "Sweep", before: list[dict[str, Any]]) -> str:
    """Return a line per run: its parameters, and what became of it before."""
    import pandas as pd

    from helpers.sweep import as_text

    status = {record["name"]: record["status"] for record in before}
    rows = [
        {**{key: as_text(value) for key, value in parameters.items()}, "status": status.get(name, "")}
        for name, parameters in planned.runs.items()
    ]
    return pd.DataFrame(rows).to_string()


def _results(folder: Path, record: dict[str, Any]) -> "pd.DataFrame":
    """Return the result rows of the lessons that are done, one per training, each value as the text in its file."""
    import pandas as pd

    paths = [_result_file(folder, entry) for entry in record["lessons"] if entry["status"] == "done"]
    tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths if path.is_file()]
    return pd.concat(tables, ignore_index=True).fillna("") if tables else pd.DataFrame(columns=list(COLUMNS))


def _read(name: str, text: str) -> Any:
    """Read a parameter's value: JSON, which knows 1e-3 as a number, else YAML, which knows words without quotes."""
    import yaml

    with suppress(ValueError):
        return json.loads(text)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # the latter for a date that the calendar lacks
        raise ValueError(f"{name}: {text!r} cannot be read as YAML; values look like 3, adam or [0, 1, 2]") from error


def _absolute(path: str) -> str:
    """Return the absolute path of a file: kernels and `--resume` may start in another folder."""
    return os.path.abspath(os.path.expanduser(path))  # unlike Path's, it leaves the name of an unknown user as it is


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

    defaults = {name: value for name, value in lessons.parameters(lesson.path).items() if name != "run_dir"}
    passed = {name: value for name, value in values.items() if name in defaults or name == "run_dir"}
    identity = {"number": lesson.number, "name": lesson.name, "title": lesson.title}
    return {**identity, "status": "not run", "parameters": {**defaults, **passed}}


def _described(dataset: "Dataset | None") -> dict[str, Any] | None:
    """Return what identifies the data of a run, and how far its test set can be trusted."""
    from helpers.data import duplicated_images

    if dataset is None:
        return None
    images = {"training images": len(dataset.train), "test images": len(dataset.test)}
    images["test images also in training"] = duplicated_images(dataset)
    return {"name": dataset.name, "sha256": dataset.fingerprint, **images}


def _made_with() -> dict[str, Any]:
    """Return versions, machine and commit: what a run depends on beside its parameters and data."""
    import platform
    import subprocess
    from importlib import metadata

    from helpers.runs import REPOSITORY
    from helpers.sweep import THREADS

    commit, processor = None, platform.processor() or platform.machine()
    if (REPOSITORY / ".git").exists():
        command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        with suppress(OSError):  # no git on this machine
            commit = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip() or None
    with suppress(OSError, TypeError):  # Linux's own processor names are empty, its /proc says more
        processor = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())[1]
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    settings = {name: os.environ[name] for name in (*THREADS, "TF_ENABLE_ONEDNN_OPTS") if name in os.environ}
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "versions": {"tutorial": __version__, "python": platform.python_version(), **versions},
        "machine": {"system": platform.platform(), "processor": processor, "threads": threads, **settings},
        "commit": commit,
    }


def _notebook(folder: Path, entry: dict[str, Any]) -> Path:
    return folder / "lessons" / f"{entry['name']}.ipynb"


def _result_file(folder: Path, entry: dict[str, Any]) -> Path:
    return folder / "artefacts" / f"results-{entry['number']}.csv"


def _save(folder: Path, record: dict[str, Any]) -> None:
    from helpers.runs import write_text

    write_text(folder / "run.json", json.dumps(record, indent=1))


@contextmanager
def _signals_as_exit(kill_children: bool = True) -> Iterator[list[int]]:
    """Turn Ctrl-C and SIGTERM into SystemExit with the exit code that shells expect, 130 or 143, and kill the kernel.

    SystemExit passes through asyncio, nbclient and papermill, which saves the notebook on its way. Yields the list of
    signals received.
    """
    import psutil

    def stop(number: int, frame: object) -> None:
        received.append(number)
        for each in signals:  # a second Ctrl-C shall not break what saves the work
            signal.signal(each, signal.SIG_IGN)
        children = psutil.Process().children(recursive=True) if kill_children else []
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
