"""The command line: `transfer-tutorial lessons` writes the notebooks to work on, `run` executes them headless and
leaves a folder with all that came out, and `sweep` executes one of them over a grid of parameters.

Options in, lines out. What takes time to import is imported inside the commands, so that `--help` answers at once.
"""

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from helpers import __version__

if TYPE_CHECKING:
    from helpers.runner.sweep import Sweep

FOLDER = click.Path(path_type=Path)
PARAMETERS = """\b
NAME is a variable in a lesson's first cell with code, which is tagged `parameters`.
VALUE is YAML: 3, adam, 1e-3, [0, 1, 2]. A lesson's parameters and what they mean:
    transfer-tutorial lessons DIR
    papermill --help-notebook DIR/05_transfer_comparison.ipynb"""


class _Lossy:
    """Standard output or error, whose terminal or reader may go away: then what is said is lost, and no work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:  # what it still holds goes nowhere, now and when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class BadInput(click.ClickException):
    """Something given cannot be; said in one line, before anything is run or written."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="transfer-tutorial")
def main() -> None:
    """Transfer learning by running the experiment properly: seven notebooks, run as lessons or headless."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed before this process began; a file must not get its number
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, mode))
    sys.stdout, sys.stderr = cast(TextIO, _Lossy(sys.stdout)), cast(TextIO, _Lossy(sys.stderr))
    if os.path.expanduser("~") == "~":  # a user without a home, as in a container under another number
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        os.getcwd()
    except OSError as error:
        raise BadInput("the folder that you are in is gone; cd to another") from error
    for name in ("MNIST_NPZ", "TRANSFER_TUTORIAL_DATA"):
        if os.environ.get(name):
            from helpers.runner.notebooks import absolute

            os.environ[name] = absolute(os.environ[name])


@main.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
def lessons(folder: Path) -> None:
    """Write the lessons into a folder, as notebooks to read, run and change in JupyterLab.

    What is there already is never overwritten.

    \b
    Example:
        transfer-tutorial lessons course
    """
    from helpers.runner import copies

    with _bad_input_in_one_line():
        paths = copies.write_lessons(folder)
    click.echo(f"{len(paths)} lessons in {folder}\nTo open the first: {shlex.join(['jupyter', 'lab', str(paths[0])])}")


# Options of several commands
DATASET = click.option("--dataset", metavar="NAME-OR-PATH", help="Data by name, a file or a folder of images.")
ONLY = click.option("--only", metavar="LESSONS", help="Take these lessons only, such as 03,05.")
GIVEN = click.option("-p", "given", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set a parameter.")
RESUME = click.option("--resume", type=FOLDER, metavar="DIR", help="Go on with what is missing or failed in DIR.")
TIMEOUT = click.option(
    "--timeout", type=click.IntRange(1), metavar="SECONDS", help="Fail what has a cell that takes longer."
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Check everything, print what would run, and run nothing.")


@main.command("class", epilog=PARAMETERS)
@click.argument("folder", type=FOLDER, metavar="DIR")
@DATASET
@ONLY
@GIVEN
def class_(folder: Path, dataset: str | None, only: str | None, given: tuple[tuple[str, str], ...]) -> None:
    """Write the lessons as assignments of nbgrader, with their parameters as given, into a course folder.

    Without --dataset the data is mnist_5k, which needs no network. Assignments that are there stay as they are.

    \b
    Example:
        transfer-tutorial class course --only 01,02 -p target_classes "[0, 1, 2]"
    """
    from helpers.runner import assignments, batch, notebooks, parameters

    with _bad_input_in_one_line():
        values = {"dataset": "mnist_5k", **parameters.read_given(given, dataset)}
        wanted = notebooks.lessons() if only is None else [notebooks.lesson(each.strip()) for each in only.split(",")]
        chosen, _, notes = batch.with_what_is_at_hand(wanted, values)
        paths = assignments.write(folder, chosen, values)
    hint = f"To make a handout, in {folder}: nbgrader generate_assignment {paths[0].stem}"
    click.echo("\n".join([*notes, f"{len(paths)} assignments in {folder / 'source'}", hint]))


@main.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.argument("lesson")
def misconceptions(folder: Path, lesson: str) -> None:
    """Count what the checks said of the answers to a LESSON, in a course folder DIR, after nbgrader autograde.

    A figure is left there too: misconceptions-LESSON.png.

    \b
    Example:
        transfer-tutorial misconceptions course 02
    """
    from helpers.plots import answers, png
    from helpers.runner import assignments, notebooks

    with _bad_input_in_one_line():
        name = notebooks.lesson(lesson).name
        counted = assignments.misconceptions(assignments.replies(folder, name))
        picture = folder / f"misconceptions-{name}.png"
        picture.write_bytes(png(answers.misconceptions(counted))[0])
    click.echo(f"{counted.to_string(index=False)}\n\nOpen {picture}")


@main.command(epilog=PARAMETERS)
@DATASET
@ONLY
@GIVEN
@click.option("--out", type=FOLDER, metavar="DIR", help="New folder.  [default: runs/<dataset>-<date>-<time>]")
@RESUME
@TIMEOUT
@DRY_RUN
def run(
    dataset: str | None,
    only: str | None,
    given: tuple[tuple[str, str], ...],
    out: Path | None,
    resume: Path | None,
    timeout: int | None,
    dry_run: bool,
) -> None:
    """Run the lessons headless, with their parameters as given, into a new folder.

    It holds the executed notebooks, an index.html to look at, results.csv with one row per training, and run.json.
    Without --dataset the data is mnist, or mnist_5k where MNIST cannot be had.

    \b
    Example:
        transfer-tutorial run --only 03,05 -p seeds "[0, 1]" -p epochs 10
    """
    from helpers.runner.notebooks import signals_as_exit

    with signals_as_exit() as received, ExitStack() as held:
        from helpers.runner import batch, notebooks, process, report
        from helpers.runner.worker import one_line

        with _bad_input_in_one_line():
            notebooks.allow_open_files()
            if resume is None:
                lessons = None if only is None else [number.strip() for number in only.split(",")]
                started = batch.new(dataset, given, lessons, out, make=not dry_run)
                if not dry_run:
                    held.enter_context(process.lock("--out", started.folder))
            else:
                _check_alone(dataset, only, given, out)
                held.enter_context(process.lock("--resume", resume))
                started = batch.resume(resume.absolute())
        for note in started.notes:
            click.echo(note)
        if dry_run:
            click.echo(batch.table(started).to_string(index=False))
            return
        go_on = partial(_go_on, "run", started.folder, {"timeout": timeout})
        try:
            with batch.recorded(started):
                failed = batch.execute(started, received, timeout)
                results = batch.write_results(started)
                index = report.write_run(started.folder, started.record, results)
            if len(results):
                click.echo("\nMean test accuracy in percent, by labels per class:\n")
                click.echo(report.result_table(results).to_string(index=False))
            click.echo(f"\nOpen {index}")
        except SystemExit:
            click.echo(f"\nInterrupted.{go_on()}", err=True)
            raise
        except Exception as error:  # a full disk, a page that cannot be written
            raise click.ClickException(f"{one_line(error)}{go_on()}") from error
    if failed:
        raise click.ClickException(failed + go_on())


@main.command(epilog=PARAMETERS)
@click.argument("notebook", metavar="LESSON", required=False)
@click.option("--grid", "swept", multiple=True, metavar="NAME=V1,V2,...", help="Sweep over values of a parameter.")
@DATASET
@GIVEN
@click.option("--out", type=FOLDER, metavar="DIR", help="New folder, or this sweep's to go on with it or add to it.")
@RESUME
@click.option("--scheduler", metavar="ADDRESS", help="Run on this Dask cluster.  [default: on this machine]")
@click.option(
    "--workers", type=click.IntRange(1), metavar="N", help="Runs at a time here.  [default: as cores and memory allow]"
)
@click.option("--retries", type=click.IntRange(0), default=0, metavar="K", help="Repeat a run that fails, K times.")
@TIMEOUT
@DRY_RUN
@click.option("--yes", is_flag=True, help="Allow more than 10,000 runs.")
def sweep(
    notebook: str | None,
    swept: tuple[str, ...],
    dataset: str | None,
    given: tuple[tuple[str, str], ...],
    out: Path | None,
    resume: Path | None,
    scheduler: str | None,
    workers: int | None,
    retries: int,
    timeout: int | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Run one lesson, or a notebook of your own by its path, once for each combination of values in a grid.

    DIR gets the executed notebooks, results.csv with the parameters as columns, and sweep.html to look at. The same
    command again, and --resume, run what is missing or failed.

    \b
    Example:
        transfer-tutorial sweep 05 --grid recipe=fast,published --grid "seeds=[0],[1]" --out sweeps/recipes
    """
    from helpers.runner import notebooks

    with notebooks.signals_as_exit(kill_children=False):  # Dask stops its own
        from helpers import folders
        from helpers.runner import cluster, parameters, sweep

        with _bad_input_in_one_line():
            notebooks.allow_open_files()
            cluster.check_options(scheduler, workers)
            on_cluster = scheduler is not None
            if resume is not None:
                _check_alone(notebook, swept, dataset, given, out)
                planned = sweep.resume(resume.absolute(), on_cluster)
            elif notebook is None or out is None:
                raise ValueError("sweep: needs a LESSON and --out DIR, or --resume DIR alone; see sweep --help")
            else:
                values, found = parameters.read_given(given, dataset), notebooks.find(notebook)
                planned = sweep.plan(found, parameters.read_grid(swept), values, out.absolute(), yes, on_cluster)
            folders.check_folder("--out", str(out or resume), planned.out)
        before = sweep.records(planned)
        missing = len(sweep.missing(planned, before))
        click.echo(f"{planned.notebook.name}: {len(planned.runs)} runs, {len(planned.runs) - missing} of them done")
        if missing:
            click.echo(sweep.estimate(before, missing))
        if dry_run:
            click.echo(sweep.table(planned, before).to_string())
            return
        how = {"scheduler": scheduler, "workers": workers, "retries": retries, "timeout": timeout}
        if missing:
            with _early_end_reported(planned, how):
                _run_sweep(planned, scheduler, workers, retries, timeout)
        if failed := _report_sweep(planned):
            message = f"{len(failed)} of {len(planned.runs)} runs failed, {failed[0]['name']}: {failed[0]['error']}"
            raise click.ClickException(message + _go_on("sweep", planned.out, how))


def _check_alone(*others: object) -> None:
    """Raise ValueError for options beside `--resume` that say what to run."""
    if any(others):
        raise ValueError(
            "--resume: takes everything from the run that it goes on with; give no other option that says what to run"
        )


def _go_on(command: str, folder: Path, how: dict[str, Any]) -> str:
    """Return the line with the command that goes on in a folder, to be copied; `how` are its other options."""
    if not (folder / f"{command}.json").is_file():
        return "\nNothing has run yet; the same command starts again"
    options = [word for name, value in how.items() if value for word in (f"--{name}", str(value))]
    return "\nTo go on: " + shlex.join(["transfer-tutorial", command, "--resume", str(folder), *options])


@contextmanager
def _bad_input_in_one_line() -> Iterator[None]:
    """Turn what the checks before a run refuse into one line."""
    from helpers.datasets import DownloadError

    try:
        yield
    except (ValueError, DownloadError, OSError) as error:
        raise BadInput(str(error)) from error


@contextmanager
def _early_end_reported(planned: "Sweep", how: dict[str, Any]) -> Iterator[None]:
    """Report what a sweep has got if it cannot go on or is stopped; say so in one line, and how to go on in another."""
    try:
        yield
    except ValueError as error:
        raise BadInput(" ".join(str(error).split())) from error
    except OSError as error:  # the scheduler is gone, the disk is full
        with suppress(OSError):
            _report_sweep(planned)
        raise click.ClickException(str(error) + _go_on("sweep", planned.out, how)) from error
    except SystemExit:
        _report_sweep(planned)
        click.echo("\nInterrupted." + _go_on("sweep", planned.out, how), err=True)
        raise


def _run_sweep(planned: "Sweep", scheduler: str | None, workers: int | None, retries: int, timeout: int | None) -> None:
    """Execute the runs that are missing, with a progress bar."""
    from tqdm import tqdm

    from helpers.runner import cluster, process, sweep

    with cluster.connect(scheduler, workers) as (client, settings):
        planned.out.mkdir(parents=True, exist_ok=True)
        with process.lock("--out", planned.out):
            missing, failed = sweep.missing(planned, sweep.records(planned)), 0  # known for sure only now
            places = sum(client.nthreads().values())
            click.echo(f"{len(missing)} to run, {places} at a time; Dask's dashboard: {client.dashboard_link}")
            with tqdm(total=len(missing), unit="run") as bar:
                for record in sweep.execute(client, planned, missing, retries, {**settings, "timeout": timeout}):
                    failed += record["status"] == "failed"
                    bar.set_postfix(finished=bar.n + 1 - failed, failed=failed, refresh=False)
                    bar.update()


def _report_sweep(planned: "Sweep") -> list[dict[str, Any]]:
    """Write `results.csv` and the page and print where to look; return the records of this grid's failed runs."""
    from helpers.runner import report, sweep

    if not (planned.out / "sweep.json").is_file():
        return []  # stopped before the first run began
    records = sweep.records(planned)
    click.echo(f"\nOpen {report.write_sweep(planned, records, sweep.write_results(planned, records))}")
    return [record for record in records if record["status"] == "failed" and record["name"] in planned.runs]
