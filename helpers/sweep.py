"""A sweep: one notebook over a grid of parameters, on the processes of this machine or on a Dask cluster.

Dask schedules the runs, repeats them and outlives workers that die; papermill executes each of them. The notebook and
the data files that its parameters name travel to the workers as bytes, and what comes back is written here, run by
run: so the workers need this package and no shared folder, and a sweep that was stopped goes on with what is missing.
"""

import asyncio
import hashlib
import itertools
import json
import logging
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import __version__, lessons
from helpers.lessons import Lesson, LessonError
from helpers.runs import CODE, write_text

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

MANY = 10_000  # runs that nobody wants by mistake
CONNECT_SECONDS = 10
KERNEL_MEMORY = 2 * 2**30  # bytes to have for each kernel with TensorFlow in it
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
VERSION = f"{__version__}+{hashlib.sha256(json.dumps(CODE).encode()).hexdigest()[:12]}"  # of this code: edits count
KEYS = {"done": {"name", "parameters", "seconds", "results"}, "failed": {"name", "parameters", "error"}}  # of a record


class RunError(RuntimeError):
    """A run failed on its worker; `outcome` is what there is of it, as `run_notebook` returns it."""

    def __init__(self, message: str, outcome: dict[str, Any] | None = None) -> None:
        super().__init__(message)  # without the outcome, which Dask would keep as text a second time
        self.outcome = outcome or {}


@dataclass(frozen=True)
class Sweep:
    """A notebook, the SHA-256 of its code and its default parameters; data files by the path that parameters name them
    by; the swept parameters' names; what each run is given, by its name; and the folder for what comes out.
    """

    lesson: Lesson
    content: str
    defaults: dict[str, Any]
    files: dict[str, bytes]
    swept: tuple[str, ...]
    runs: dict[str, dict[str, Any]]
    out: Path


def plan(lesson: Lesson, grid: Mapping[str, Sequence[Any]], given: Mapping[str, Any], out: Path, many: bool) -> Sweep:
    """Check a grid, and parameters that all runs share, against those of a notebook, and lay out the runs in order.

    A whole number for a parameter with a decimal point gets one: 1 and 1.0 are the same run. Raises ValueError for an
    empty grid, for one of more than 10,000 runs unless `many` are wanted, for names and values that the notebook does
    not take, and for a folder that holds something else; DownloadError for data that cannot be had.
    """
    defaults = lessons.parameters(lesson.path)
    given = {name: _typed(value, defaults.get(name)) for name, value in given.items()}
    grid = {name: [_typed(value, defaults.get(name)) for value in values] for name, values in grid.items()}
    _check_grid(grid, given, many)
    lessons.check_parameters([lesson], given, grid)
    shared = {name: value for name, value in defaults.items() if _names_file(value)} | dict(given)
    named = {value for value in itertools.chain(shared.values(), *grid.values()) if _names_file(value)}
    if "MNIST_NPZ" in os.environ and "mnist" in grid.get("dataset", [{**defaults, **given}.get("dataset")]):
        named.add(os.environ["MNIST_NPZ"])
    files = {path: Path(path).expanduser().read_bytes() for path in sorted(named)}
    content, digests = lessons.fingerprint(lesson.path), {path: _sha256(data) for path, data in files.items()}
    runs = {}
    for values in itertools.product(*grid.values()):
        passed = shared | dict(zip(grid, values, strict=True))
        runs[_name(content, defaults, passed, digests)] = passed
    sweep = Sweep(lesson, content, defaults, files, tuple(grid), runs, out)
    _identity(sweep)
    return sweep


def records(sweep: Sweep) -> list[dict[str, Any]]:
    """Return what is known of all runs in the folder, finished or failed: those of this grid first, in its order.

    Of a run by other code than this nothing is known, nor of one whose record or notebook is damaged: it is missing.
    """
    order, found = {name: place for place, name in enumerate(sweep.runs)}, []
    for path in sorted((sweep.out / "runs").glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            record = json.loads(path.read_text(encoding="utf-8"))
            whole = record["status"] == "failed" or path.with_suffix(".ipynb").is_file()
            if whole and record["version"] == VERSION and KEYS[record["status"]] <= record.keys():
                found.append(record)
    return sorted(found, key=lambda record: order.get(record["name"], len(order)))


def missing(sweep: Sweep) -> list[str]:
    """Return the names of the runs of the grid that have not finished."""
    done = {record["name"] for record in records(sweep) if record["status"] == "done"}
    return [name for name in sweep.runs if name not in done]


def results(sweep: Sweep) -> "pd.DataFrame":
    """Return the result rows of all finished runs as text, a row of its own for a run that left none.

    Before a run's own columns come its name, its parameters and its seconds. A parameter is called `parameter_<name>`
    where rows have a column of its name, which may say something else: a label budget, not the list of them. What else
    would have the name of a column before it is called `own_<name>`.
    """
    import pandas as pd

    done = [record for record in records(sweep) if record["status"] == "done"]
    names = dict.fromkeys(name for record in done for name in record["parameters"])
    tables = [_table(record["results"]) for record in done]
    taken = {"run", "run_seconds"}.union(*tables)
    for place, (record, table) in enumerate(zip(done, tables, strict=True)):
        values = {name: as_text(record["parameters"].get(name, sweep.defaults[name])) for name in names}
        columns = {f"parameter_{name}" if name in taken else name: value for name, value in values.items()}
        lead = {"run": record["name"], **columns, "run_seconds": str(record["seconds"])}
        own = table.rename(columns=lambda name, lead=lead: f"own_{name}" if name in lead else name)
        tables[place] = pd.DataFrame(lead, index=own.index).join(own)
    return pd.concat(tables, ignore_index=True).fillna("") if tables else pd.DataFrame(columns=["run", "run_seconds"])


def as_text(value: Any) -> str:
    """Write a parameter's value as it is given on the command line."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def local_settings(workers: int | None) -> tuple[int, dict[str, Any]]:
    """Return the number of workers, by default as many as this machine has cores and memory for, and what each of their
    kernels gets: environment variables that share the cores, where they are not set already, and bytes of `memory`.
    """
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    workers = workers or max(1, min(CPU_COUNT, MEMORY_LIMIT // KERNEL_MEMORY))
    threads = {name: os.environ.get(name, str(max(1, CPU_COUNT // workers))) for name in THREADS}
    return workers, {"environment": threads, "memory": MEMORY_LIMIT // workers}


@contextmanager
def connect(scheduler: str | None, workers: int) -> "Iterator[Client]":
    """Connect to a scheduler's address; without one, start worker processes of one run each, and stop them at the end.
    Nothing outside this machine can reach those, and nobody else on it: they want a certificate made for them alone.

    Raises ValueError for a scheduler that is not there, or has a worker without this version of this package.
    """
    from distributed import Client, LocalCluster

    for name in ("distributed", "distributed.client", "asyncio", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is said in one line
    if scheduler is None:
        settings = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "security": True}
        with (
            LocalCluster(n_workers=workers, silence_logs=logging.CRITICAL, **settings) as cluster,
            Client(cluster) as c,
        ):
            yield c
        return
    try:
        asyncio.run(_reach(scheduler))
    except (OSError, ValueError, OverflowError, TypeError) as error:
        raise ValueError(
            f"--scheduler: {scheduler!r} cannot be reached; an address looks like tcp://127.0.0.1:8786, "
            "and one with tls:// needs certificates in Dask's configuration"
        ) from error
    with Client(scheduler, timeout=CONNECT_SECONDS) as client:
        _check_workers(client)
        yield client


def execute(
    client: "Client", sweep: Sweep, runs: Sequence[str], retries: int, settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Execute runs on the workers; write each one's record and notebook when it ends, and yield the record.

    `settings` are environment variables for the kernels and limits: a run fails if its kernel takes more than `memory`
    bytes or a cell longer than `timeout` seconds. A run that fails is repeated up to `retries` times; one whose worker
    dies is repeated anyway, as Dask does it. Raises ConnectionError if the scheduler goes away; what was yielded by
    then is written.
    """
    import dask
    from distributed import as_completed

    write_text(sweep.out / "sweep.json", json.dumps(_identity(sweep), indent=1))
    carried = {name: os.environ[name] for name in ("MNIST_NPZ",) if os.environ.get(name) in sweep.files}
    luggage = {
        "notebook": sweep.lesson.path.read_bytes(),
        "files": sweep.files,
        "version": VERSION,
        **settings,
        "environment": {**settings["environment"], **carried},
    }
    digest = _sha256(json.dumps(luggage, default=_sha256).encode())  # bytes count by their own
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"}):
        # A task, as scattered data would be lost with its worker; the runs carry no more than its key.
        sent = client.submit(dict, luggage, key=f"luggage-{digest}")
        keys, parameters = [f"run-{name}" for name in runs], [sweep.runs[name] for name in runs]
        futures = client.map(run_notebook, parameters, luggage=sent, key=keys, retries=retries)
    ended = as_completed(futures, with_results=True, raise_errors=False)
    del futures  # so that each result is forgotten, here and on its worker, once it is written
    for future, result in ended:
        if future.status not in ("finished", "error"):
            raise ConnectionError("--scheduler: it is gone, or forgot this sweep; runs that finished are kept")
        error = result[1] if future.status == "error" else None
        outcome = {"error": _one_line(error), **getattr(error, "outcome", {})} if error else result
        yield _write(sweep, future.key.removeprefix("run-"), outcome)


def run_notebook(parameters: dict[str, Any], luggage: dict[str, Any]) -> dict[str, Any]:
    """Execute one run, on a worker, in a folder that is deleted afterwards.

    `luggage` is what all runs share: the notebook, the data files, the version of this package, and the settings of
    `execute`. Returns the executed `notebook` as text, the text of each `results-*.csv` that it left in its working
    directory or its run folder, and the `seconds` that it took. Raises RunError, with the same as its outcome, if a
    cell fails.
    """
    if luggage["version"] != VERSION:
        raise RunError(f"this worker has version {VERSION} of this package, and the sweep {luggage['version']}")
    start, failed = time.perf_counter(), {}
    with tempfile.TemporaryDirectory(prefix="transfer-tutorial-", ignore_cleanup_errors=True) as temporary:
        home, notebook, output = (Path(temporary, name) for name in ("run", "notebook.ipynb", "executed.ipynb"))
        home.mkdir()
        notebook.write_bytes(luggage["notebook"])
        here = _unpack(luggage["files"], Path(temporary))
        values = {name: here.get(as_text(value), value) for name, value in parameters.items()}
        environment = {name: here.get(value, value) for name, value in luggage["environment"].items()}
        environment["TRANSFER_TUTORIAL_HOME"] = str(home)
        try:
            settings = {"folder": home, "environment": environment, "timeout": luggage["timeout"]}
            with _limited_memory(luggage["memory"]):
                lessons.execute(Lesson("", "", "", notebook), output, values, **settings)
        except LessonError as error:
            failed = {"cell": error.cell, "error": _one_line(error)}
        outcome = {
            "notebook": output.read_text(encoding="utf-8") if output.is_file() else "",
            "results": [path.read_text(encoding="utf-8") for path in sorted(home.rglob("results-*.csv"))],
            "seconds": round(time.perf_counter() - start, 2),
            **failed,
        }
    if failed:  # raised out here: a cause, which Dask would send along, does not survive its pickling
        raise RunError(failed["error"], outcome)
    return outcome


@contextmanager
def _limited_memory(limit: int | None) -> Iterator[None]:
    """Kill a kernel of this worker that takes more than so many bytes; Dask watches the worker's own process alone."""
    import psutil

    over = threading.Event()

    def watch() -> None:
        while limit and not over.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if process.memory_info().rss > limit:
                        process.kill()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _table(texts: list[str]) -> "pd.DataFrame":
    """Read the texts of results files as one table, of one row without columns if they have none."""
    import pandas as pd

    tables = []
    for text in texts:
        with suppress(ValueError):  # it is empty, or has lines of different length
            tables.append(pd.read_csv(StringIO(text), dtype=str, keep_default_na=False))
    return pd.concat(tables, ignore_index=True) if any(map(len, tables)) else pd.DataFrame(index=[0])


def _typed(value: Any, default: Any) -> Any:
    """Return a whole number as a float if the default is one and no digit is lost."""
    return float(value) if type(value) is int and isinstance(default, float) and abs(value) < 2**53 else value


def _check_grid(grid: Mapping[str, Sequence[Any]], given: Mapping[str, Any], many: bool) -> None:
    """Raise ValueError for a grid that is none, whatever the notebook."""
    if not grid:
        raise ValueError("--grid: there is nothing to sweep over; give at least one, such as --grid seed=0,1,2")
    for name, values in grid.items():
        texts = [as_text(value) for value in values]
        if name in given:
            raise ValueError(f"{name}: given twice, by --grid and by -p")
        if not values:
            raise ValueError(f"{name}: --grid gives it no value; give some, such as --grid {name}=1,2")
        if len(set(texts)) < len(texts):
            raise ValueError(f"{name}: --grid gives {max(texts, key=texts.count)} twice; give each value once")
    if "run_dir" in {*grid, *given}:
        raise ValueError("run_dir: is not for a sweep, as each of its runs gets a folder of its own; leave it out")
    count = math.prod(map(len, grid.values()))
    if count > MANY and not many:
        raise ValueError(f"--grid: makes {count:,} runs, more than {MANY:,}; add --yes if that is what you want")


def _name(content: str, defaults: Mapping[str, Any], passed: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """Name a run by what differs from the defaults, which reads well, and by a digest of everything it follows from.

    Which parameters are swept and which are shared makes no difference, so a grid can grow by another parameter.
    """
    values = {**defaults, **passed}
    words = [f"{name}={as_text(value)[-24:]}" for name, value in values.items() if value != defaults[name]]
    label = re.sub(r"[^\w.=+,-]+", "_", ",".join(words) or "defaults", flags=re.ASCII)  # one byte each in a file's name
    made_from = [content, {name: [value, digests.get(as_text(value))] for name, value in values.items()}]
    return f"{label[:120]}-{_sha256(json.dumps(made_from, sort_keys=True, default=str).encode())[:12]}"


def _identity(sweep: Sweep) -> dict[str, Any]:
    """Return what `sweep.json` says of a sweep, to be; raise ValueError if its folder holds anything else."""
    out, files = str(sweep.out), {path: _sha256(data) for path, data in sweep.files.items()}
    identity = {"notebook": sweep.lesson.name, "content": sweep.content, "files": files}
    if not sweep.out.exists() or (sweep.out.is_dir() and not any(sweep.out.iterdir())):
        return identity
    try:
        before = json.loads((sweep.out / "sweep.json").read_text(encoding="utf-8"))
        notebook, content, known = (before[key] for key in identity)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--out: {out!r} exists and is not the folder of a sweep; give a new one") from error
    if content != sweep.content:
        which = "an earlier state of it" if notebook == sweep.lesson.name else f"another notebook, {notebook}"
        raise ValueError(f"--out: {out!r} holds runs of {which}, and each sweep needs its own; give a new one")
    for path in files.keys() & known.keys():
        if files[path] != known[path]:
            raise ValueError(f"--out: {out!r} holds runs with another content of {path!r}; give a new folder")
    return {**identity, "files": {**known, **files}}


async def _reach(scheduler: str) -> None:
    """Connect once and hang up. A Client that fails to connect cannot be closed, and when it is collected while another
    one starts, that one hangs.
    """
    from distributed import Security
    from distributed.comm import connect

    comm = await connect(scheduler, timeout=CONNECT_SECONDS, **Security().get_connection_args("client"))
    await comm.close()


def _check_workers(client: "Client") -> None:
    """Raise ValueError if a worker lacks this package or has another version of it."""

    def installed() -> str:  # defined here, it travels as code to a worker that may have nothing to import it from
        from helpers.sweep import VERSION

        return VERSION

    for worker, found in client.run(installed, on_error="return").items():
        if found != VERSION:
            has = f"version {found}" if isinstance(found, str) else "none with sweeps"
            raise ValueError(
                f"--scheduler: its worker {worker} has {has} of this package, and here is {VERSION}; "
                "install the same wherever a worker runs"
            )


def _names_file(value: Any) -> bool:
    """Tell whether a value is the path of a file that is here, rather than a word."""
    with suppress(OSError, ValueError):
        return isinstance(value, str) and bool(re.search(r"[./\\]", value)) and Path(value).expanduser().is_file()
    return False


def _unpack(files: Mapping[str, bytes], folder: Path) -> dict[str, str]:
    """Write files into folders of their own, as their names may show in results; return where each path is now."""
    here = {}
    for number, (path, content) in enumerate(files.items()):
        copy = folder / str(number) / Path(path).name
        copy.parent.mkdir()
        copy.write_bytes(content)
        here[path] = str(copy)
    return here


def _write(sweep: Sweep, name: str, outcome: dict[str, Any]) -> dict[str, Any]:
    """Write what came back of a run, the record last, as it says that all is there; return the record."""
    status, notebook = "failed" if "error" in outcome else "done", outcome.pop("notebook", "")
    record = {"name": name, "version": VERSION, "status": status, "parameters": sweep.runs[name], **outcome}
    if notebook:
        write_text(sweep.out / "runs" / f"{name}.ipynb", notebook)
    write_text(sweep.out / "runs" / f"{name}.json", json.dumps(record, indent=1, default=str))
    return record


def _one_line(error: BaseException) -> str:
    """Return an error as one line, with its type where the text has none."""
    kind = "" if isinstance(error, RunError | LessonError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())[:1000]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
