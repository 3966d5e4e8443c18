"""A sweep: one notebook over a grid of parameters, on the processes of this machine or on a Dask cluster.

Dask schedules the runs, repeats them and outlives workers that die; papermill executes each of them. The notebook and
the data files that its parameters name travel to the workers as bytes, and what comes back is written here, run by
run: so the workers need this package and no shared folder, and a sweep that was stopped goes on with what is missing.
A dataset that is a folder stays where it is, so such a sweep runs on this machine alone.
"""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.datasets import is_path
from helpers.files import folder_sha256
from helpers.folders import read_results
from helpers.runner import notebooks, pages, parameters
from helpers.runner.notebooks import Notebook
from helpers.runner.parameters import as_text
from helpers.runner.worker import VERSION, one_line, run_notebook
from helpers.store import checksum, write_text

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client, Future

FOLDERS = ("dataset", "photos")  # parameters that may name one
KEYS = {"done": {"name", "parameters", "seconds", "results"}, "failed": {"name", "parameters", "error"}}  # of a record


@dataclass(frozen=True)
class Sweep:
    """A notebook, the SHA-256 of its code and its default parameters; data files by the path that parameters name them
    by; files beside the notebook, by the path that its code names them by; the SHA-256 of data files and data folders,
    by path; the swept parameters' names; what each run is given, by its name; the folder for what comes out; and what
    was asked for, from which `resume` makes the same sweep again.
    """

    notebook: Notebook
    content: str
    defaults: dict[str, Any]
    files: dict[str, bytes]
    beside: dict[str, bytes]
    digests: dict[str, str]
    swept: tuple[str, ...]
    runs: dict[str, dict[str, Any]]
    out: Path
    asked: dict[str, Any]


def plan(
    notebook: Notebook,
    grid: Mapping[str, Sequence[Any]],
    given: Mapping[str, Any],
    out: Path,
    many: bool,
    on_cluster: bool = False,
) -> Sweep:
    """Check a grid, and parameters that all runs share, against those of a notebook, and lay out the runs in order.

    Raises ValueError for what `parameters` refuses, for a folder that holds something else, and for data in a folder if
    the runs are to be `on_cluster`; DownloadError for data that cannot be had.
    """
    defaults = notebooks.defaults(notebook.path)

    def settled(name: str, value: Any) -> Any:
        return (
            notebooks.absolute(value) if _is_data_folder(name, value) else parameters.typed(value, defaults.get(name))
        )

    given = {name: settled(name, value) for name, value in given.items()}
    grid = {name: [settled(name, value) for value in values] for name, values in grid.items()}
    parameters.check_grid(grid, given, many)
    name = notebook.name if notebook.number else str(notebook.path)
    asked = {"folder": os.getcwd(), "notebook": name, "grid": grid, "given": given}
    choices = {**{name: [value] for name, value in given.items()}, **grid}
    folders = {value: name for name in FOLDERS for value in choices.get(name, []) if _is_data_folder(name, value)}
    for folder, name in folders.items():
        if on_cluster:
            raise ValueError(
                f"{name}: {Path(folder).name!r} is a folder, which the machines of a cluster do not have; sweep on "
                "this machine, or give as dataset an .npz file, which travels to them"
            )
    parameters.check([notebook], given, grid)
    choices = {
        name: [value] for name, value in defaults.items() if _names_file(value) and name not in choices
    } | choices
    files = _data_files(choices, defaults)
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    digests |= {folder: folder_sha256(Path(folder)) for folder in folders}
    content, beside = _content(notebook)
    runs = {}
    for values in itertools.product(*choices.values()):
        passed = dict(zip(choices, values, strict=True))
        runs[_name(content, defaults, passed, digests)] = passed
    sweep = Sweep(notebook, content, defaults, files, beside, digests, tuple(grid), runs, out, asked)
    _identity(sweep)
    return sweep


def resume(folder: Path, on_cluster: bool = False) -> Sweep:
    """Return a sweep that is to go on, as it was asked for last; changes to the folder where that was, as values may be
    paths. Raises ValueError if it cannot go on.
    """
    try:
        asked = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["asked"]
        notebook, grid, given, here = (asked[name] for name in ("notebook", "grid", "given", "folder"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--resume: {str(folder)!r} holds no sweep.json of a sweep that could go on") from error
    try:
        os.chdir(here)
    except OSError as error:
        raise ValueError(f"--resume: the folder in which this sweep was started, {here!r}, is gone") from error
    return plan(notebooks.find(notebook), grid, given, folder, many=True, on_cluster=on_cluster)


def records(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the records of all runs in the folder, finished or failed: those of this grid first, in its order.

    Records that are damaged or that other code wrote are left out.
    """
    order, found = {name: place for place, name in enumerate(sweep.runs)}, []
    for path in sorted((sweep.out / "runs").glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            record = json.loads(path.read_text(encoding="utf-8"))
            whole = record["status"] == "failed" or path.with_suffix(".ipynb").is_file()
            if whole and record["version"] == VERSION and KEYS[record["status"]] <= record.keys():
                found.append(record)
    return sorted(found, key=lambda record: order.get(record["name"], len(order)))


def missing(sweep: Sweep, known: list[dict[str, Any]]) -> list[str]:
    """Return the names of the runs of the grid that have not finished, by the `records` known."""
    done = {record["name"] for record in known if record["status"] == "done"}
    return [name for name in sweep.runs if name not in done]


def write_results(sweep: Sweep, known: list[dict[str, Any]]) -> "pd.DataFrame":
    """Write `results.csv`, the result rows of all finished runs as text; return them. A run without any gets one row.

    Before a run's own columns come its name, its parameters and its seconds. A parameter whose name is also a column of
    the rows is called `parameter_<name>`: the column may hold one label budget, the parameter the list of them. Another
    column whose name is taken is called `own_<name>`.
    """
    import pandas as pd

    done = [record for record in known if record["status"] == "done"]
    names = dict.fromkeys(name for record in done for name in record["parameters"])
    tables = [read_results(map(StringIO, record["results"])) for record in done]
    tables = [table if len(table) else pd.DataFrame(index=[0]) for table in tables]
    taken = {"run", "run_seconds"}.union(*tables)
    for place, (record, table) in enumerate(zip(done, tables, strict=True)):
        values = {name: as_text(record["parameters"].get(name, sweep.defaults[name])) for name in names}
        columns = {f"parameter_{name}" if name in taken else name: value for name, value in values.items()}
        lead = {"run": record["name"], **columns, "run_seconds": str(record["seconds"])}
        own = table.rename(columns=lambda name, lead=lead: f"own_{name}" if name in lead else name)
        tables[place] = pd.DataFrame(lead, index=own.index).join(own)
    rows = pd.concat(tables, ignore_index=True).fillna("") if tables else pd.DataFrame(columns=["run", "run_seconds"])
    write_text(sweep.out / "results.csv", rows.to_csv(index=False))
    return rows


def table(sweep: Sweep, known: list[dict[str, Any]]) -> "pd.DataFrame":
    """Return a row per run: its parameters, and whether it is done or has failed."""
    import pandas as pd

    status = {record["name"]: record["status"] for record in known}
    rows = [
        {**{key: as_text(value) for key, value in given.items()}, "status": status.get(name, "")}
        for name, given in sweep.runs.items()
    ]
    return pd.DataFrame(rows)


def varied(sweep: Sweep, known: list[dict[str, Any]]) -> list[str]:
    """Return the parameters in which runs differ: those swept, then those of other grids with runs in the folder."""
    given = [{**sweep.defaults, **record["parameters"]} for record in known]
    differing = [name for name in sweep.defaults if len({as_text(values[name]) for values in given}) > 1]
    return list(dict.fromkeys([*sweep.swept, *differing]))


def label(sweep: Sweep, record: Mapping[str, Any], names: Sequence[str]) -> str:
    """Name a run for people, by its values of these parameters, `varied` ones: a file's name leaves out defaults."""
    values = {**sweep.defaults, **record["parameters"]}
    return ", ".join(f"{name}={as_text(values[name])}" for name in names)


def estimate(known: list[dict[str, Any]], to_run: int) -> str:
    """Say how long the missing runs will take, as far as it is known."""
    seconds = [record["seconds"] for record in known if record["status"] == "done"]
    if not seconds:
        return "Estimate: none before the first run has finished; the bar shows it then"
    mean = sum(seconds) / len(seconds)
    return f"Estimate: {to_run * mean / 60:.1f} minutes, {mean:.1f} s a run, divided by the runs at a time"


def execute(
    client: "Client", sweep: Sweep, runs: Sequence[str], retries: int, settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Execute runs on the workers; write each one's record and notebook when it ends, and yield the record.

    `settings` are environment variables for the kernels and limits: a run fails if its kernel takes more than `memory`
    bytes or a cell longer than `timeout` seconds. A run that fails is repeated up to `retries` times. Dask repeats one
    whose worker dies. Raises ConnectionError if the scheduler goes away; what was yielded by then is written.
    """
    import dask
    from distributed import as_completed

    write_text(sweep.out / "sweep.json", as_json(sweep))
    carried = {name: os.environ[name] for name in ("MNIST_NPZ",) if os.environ.get(name) in sweep.files}
    payload = {
        "notebook": sweep.notebook.path.read_bytes(),
        "files": sweep.files,
        "beside": sweep.beside,
        "version": VERSION,
        **settings,
        "environment": {**settings["environment"], **carried},
    }
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"}):
        # A task, as scattered data would be lost with its worker; the runs carry no more than its key.
        sent: Future[dict[str, Any]] = client.submit(dict, payload)
        keys, given = [f"run-{name}" for name in runs], [sweep.runs[name] for name in runs]
        futures = client.map(run_notebook, given, payload=sent, key=keys, retries=retries)
    ended = as_completed(futures, with_results=True, raise_errors=False)
    del futures  # so that each result is forgotten, here and on its worker, once it is written
    for future, result in ended:
        if future.status not in ("finished", "error"):
            raise ConnectionError("--scheduler: it is gone, or forgot this sweep; runs that finished are kept")
        error = result[1] if future.status == "error" else None
        outcome = {"error": one_line(error), **getattr(error, "outcome", {})} if error else result
        yield _write(sweep, future.key.removeprefix("run-"), outcome)


def as_json(sweep: Sweep) -> str:
    """Return the text of `sweep.json`: what the runs in the folder follow from, and what was asked for last."""
    return json.dumps({**_identity(sweep), "asked": sweep.asked}, indent=1)


def _data_files(choices: Mapping[str, Sequence[Any]], defaults: Mapping[str, Any]) -> dict[str, bytes]:
    """Read the files that the values of parameters name, by path, and MNIST's if a run takes it from a file."""
    named = {value for value in itertools.chain(*choices.values()) if _names_file(value)}
    if "MNIST_NPZ" in os.environ and "mnist" in choices.get("dataset", [defaults.get("dataset")]):
        named.add(os.environ["MNIST_NPZ"])
    return {path: Path(os.path.expanduser(path)).read_bytes() for path in sorted(named)}


def _content(notebook: Notebook) -> tuple[str, dict[str, bytes]]:
    """Return the SHA-256 of all that a notebook executes, and the files beside one of one's own that belong to it."""
    content = notebooks.fingerprint(notebook.path)
    if notebook.number:
        return content, {}
    beside = {name: path.read_bytes() for name, path in notebooks.named_files(notebook.path)}
    return checksum([content, beside]) if beside else content, beside


def _name(content: str, defaults: Mapping[str, Any], passed: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """Name a run by what differs from the defaults, for people, and by a digest of everything it follows from.

    Whether a parameter is swept or shared makes no difference, so a grid can grow by another parameter.
    """
    values = {**defaults, **passed}
    words = [f"{name}={as_text(value)[-24:]}" for name, value in values.items() if value != defaults[name]]
    label = re.sub(r"[^\w.=+,-]+", "_", ",".join(words) or "defaults", flags=re.ASCII)  # one byte each in a file's name
    origin = [content, {name: [value, digests.get(as_text(value))] for name, value in values.items()}]
    return f"{label[:120]}-{checksum(origin)[:12]}"


def _identity(sweep: Sweep) -> dict[str, Any]:
    """Return what `sweep.json` says of a sweep, to be; raise ValueError if its folder holds anything else."""
    out, files = str(sweep.out), sweep.digests
    identity = {"notebook": sweep.notebook.name, "content": sweep.content, "files": files}
    if not sweep.out.exists() or (sweep.out.is_dir() and not any(sweep.out.iterdir())):
        return identity
    try:
        before = json.loads((sweep.out / "sweep.json").read_text(encoding="utf-8"))
        notebook, content, known = (before[key] for key in identity)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--out: {out!r} exists and is not the folder of a sweep; give a new one") from error
    if content != sweep.content:
        which = "an earlier state of it" if notebook == sweep.notebook.name else f"another notebook, {notebook}"
        raise ValueError(f"--out: {out!r} holds runs of {which}, and each sweep needs its own; give a new one")
    for path in files.keys() & known.keys():
        if files[path] != known[path]:
            raise ValueError(f"--out: {out!r} holds runs with another content of {path!r}; give a new folder")
    return {**identity, "files": {**known, **files}}


def _names_file(value: Any) -> bool:
    """Tell whether a value is the path of a file that is here, rather than a word."""
    with suppress(OSError, ValueError):
        looks_like_one = isinstance(value, str) and bool(re.search(r"[./\\]", value))
        return looks_like_one and os.path.isfile(os.path.expanduser(value))
    return False


def _is_data_folder(name: str, value: Any) -> bool:
    """Tell whether a parameter names a folder of images."""
    return name in FOLDERS and is_path(value) and os.path.isdir(os.path.expanduser(value))


def _write(sweep: Sweep, name: str, outcome: dict[str, Any]) -> dict[str, Any]:
    """Write what came back of a run, the record last, as it says that all is there; return the record."""
    status, notebook = "failed" if "error" in outcome else "done", outcome.pop("notebook", "")
    body = outcome.pop("body", "")
    record = {"name": name, "version": VERSION, "status": status, "parameters": sweep.runs[name], **outcome}
    if notebook:
        links = [("../sweep.html", "All runs of this sweep"), (f"{name}.ipynb", "This one as a notebook")]
        about = label(sweep, record, sweep.swept)
        page = pages.render("page.html", title=about, about=about, links=links, body=body)
        write_text(sweep.out / "runs" / f"{name}.ipynb", notebook)
        write_text(sweep.out / "runs" / f"{name}.html", page)
    write_text(sweep.out / "runs" / f"{name}.json", json.dumps(record, indent=1, default=str))
    return record
