"""One run of a sweep, on a worker: unpack its files, execute the notebook, return the results."""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from helpers import __version__
from helpers.provenance import PACKAGES, SOURCES, digest, version
from helpers.runner import notebooks, pages
from helpers.runner.notebooks import CellError, KernelSettings, Notebook
from helpers.store import checksum

VERSION = f"{__version__}+{checksum({module: digest(module) for module in SOURCES})[:12]}"  # covers the whole package
VERSION = ", ".join([VERSION, *(f"{package} {version(package)}" for package in PACKAGES)])


class RunError(RuntimeError):
    """A run failed on its worker; `outcome` is the result of `run_notebook`, as far as the run got."""

    def __init__(self, message: str, outcome: dict[str, Any] | None = None) -> None:
        super().__init__(message)  # not the outcome, because Dask would keep a second copy of it as text
        self.outcome = outcome or {}


def run_notebook(given: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
    """Execute one run on a worker, in a temporary folder.

    `payload` is shared by all runs. The outcome contains the executed `notebook` as text, the `body` of its page, the
    texts of `results-*.csv` in its working directory or run folder, the files `extra-*` in its working directory as
    bytes, and the `seconds` that it took. Raises RunError with the outcome if a cell fails or results cannot be read.
    """
    import nbformat

    if payload["version"] != VERSION:
        raise RunError(f"this worker has version {VERSION} of this package instead of the sweep's {payload['version']}")
    start, failure = time.perf_counter(), dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="transfer-tutorial-", ignore_cleanup_errors=True) as temporary:
        home, notebook, output = (Path(temporary, name) for name in ("run", "notebook.ipynb", "executed.ipynb"))
        home.mkdir()
        # Each data file gets a separate folder, so that it can keep its name.
        unpacked = {path: f"{temporary}/{number}/{Path(path).name}" for number, path in enumerate(payload["files"])}
        contents = {notebook: payload["notebook"]}
        contents |= {home / name: content for name, content in payload["beside"].items()}
        contents |= {Path(unpacked[path]): content for path, content in payload["files"].items()}
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        values = {name: unpacked.get(str(value), value) for name, value in given.items()}
        environment = {name: unpacked.get(value, value) for name, value in payload["environment"].items()}
        environment["TRANSFER_TUTORIAL_HOME"] = str(payload["store"] or home)
        environment["TRANSFER_TUTORIAL_RESULTS"] = str(home)
        try:
            with _limited_memory(payload["memory"]):
                settings = KernelSettings(home, environment, payload["timeout"])
                notebooks.execute(Notebook("", "", "", notebook), output, values, settings)
        except CellError as error:
            failure = {"cell": error.cell, "error": one_line(error)}
        results, unreadable = _read_results(home)
        extra = {path.name: path.read_bytes() for path in home.glob("extra-*") if path.is_file()}
        if unreadable and not failure:
            failure = {"error": unreadable}
        executed = output.read_text(encoding="utf-8") if output.is_file() else ""
        seconds = round(time.perf_counter() - start, 2)
    body = pages.body(nbformat.reads(executed, as_version=4)) if executed else ""  # here, as workers run in parallel
    outcome = {"notebook": executed, "body": body, "results": results, "extra": extra, "seconds": seconds, **failure}
    if failure:  # without a cause, because Dask would pickle it, and a CellError cannot be unpickled
        raise RunError(failure["error"], outcome)
    return outcome


def one_line(error: BaseException) -> str:
    """Return an error as one line, with its type if the text alone does not say enough."""
    kind = "" if isinstance(error, RunError | CellError | ConnectionError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())[:1000]


def _read_results(folder: Path) -> tuple[list[str], str]:
    """Return the texts of all result files below a folder, and the first problem with any of them, or ""."""
    results, wrong = [], ""
    for path in sorted(folder.rglob("results-*.csv")):
        try:
            results.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            wrong = wrong or f"{path.name} is not UTF-8 text; write it with encoding='utf-8'"
            continue
        header = results[-1].partition("\n")[0]
        if "," not in header and {*";\t"} & {*header}:
            wrong = wrong or f"{path.name} has no commas between columns; write it with sep=','"
    return results, wrong


@contextmanager
def _limited_memory(limit: int | None) -> Iterator[None]:
    """Kill any kernel of this worker that exceeds this number of bytes; Dask watches only the worker's own process."""
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
