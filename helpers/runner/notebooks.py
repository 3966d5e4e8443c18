"""Notebooks: find a lesson or one's own, read its parameters, execute it in a kernel of its own, stop on a signal."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from helpers.folders import INSTALLED, PACKAGE, REPOSITORY
from helpers.store import checksum, write_text

LESSONS = (PACKAGE if INSTALLED else REPOSITORY) / "notebooks"
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # a kernel's
OTHERS = ("PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONOPTIMIZE", "PYTHONIOENCODING", "MPLBACKEND")  # not for a kernel
PATIENCE = 600  # seconds until a kernel has started, or has sent what a finished cell printed: machines may be crowded
OPEN_FILES = 256  # at a time, by a run and its kernels; a kernel alone opens more than 64
LONGEST_SOCKET_FOLDER = 90  # bytes; the whole path of a socket has 103 at most on macOS, 107 on Linux


class CellError(RuntimeError):
    """A notebook stopped at a cell that failed; `cell` is the number in its `In [...]`."""

    def __init__(self, cell: int, message: str) -> None:
        super().__init__(message)
        self.cell = cell


@dataclass(frozen=True)
class Notebook:
    """A notebook: number "03", name "03_pretraining", the title in its first heading, and its file.

    Lessons have a number, a notebook of one's own has none.
    """

    number: str
    name: str
    title: str
    path: Path


def lessons() -> list[Notebook]:
    """Return all lessons in their order; raise ValueError where there are none."""
    found = [
        Notebook(path.name.split("_")[0], path.stem, _title(path), path)
        for path in sorted(LESSONS.glob("[0-9][0-9]_*.ipynb"))
    ]
    if not found:
        raise ValueError(f"no lessons in {str(LESSONS)!r}, where they should be; install the course again")
    return found


def lesson(number: str, else_allowed: str = "") -> Notebook:
    """Return the lesson "03", "3" or "03_pretraining"; raise ValueError for one that does not exist."""
    known = lessons()
    for candidate in known:
        if number in (candidate.name, candidate.number, str(int(candidate.number))):
            return candidate
    allowed = ", ".join(each.name for each in known) + ", or the number alone, such as 05" + else_allowed
    raise ValueError(f"lesson: {number!r} is not known; allowed are {allowed}")


def find(name: str) -> Notebook:
    """Return a lesson by its number or name, or the notebook in a file; raise ValueError for one that is not there."""
    if not name.endswith(".ipynb"):
        return lesson(name, ", or the path of a notebook, which ends in .ipynb")
    path = Path(absolute(name))
    try:
        own, about = Notebook("", path.stem, _title(path), path), _content(path)["metadata"]
        language = {"language": "python", **about.get("kernelspec", {})}["language"]
    except OSError as error:
        raise ValueError(f"notebook: there is no file {name!r} that can be read") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"notebook: {name!r} is not a notebook of format 4, JSON with a list of cells") from error
    if language.lower() != "python":
        raise ValueError(f"notebook: {name!r} is written in {language}; give one in Python")
    return next((each for each in lessons() if each.path == path.resolve()), own)


def defaults(path: Path) -> dict[str, Any]:
    """Return the defaults of a notebook's parameters by name, None for one that has to be computed.

    They stand in the cell tagged `parameters`, and in the one that papermill injects: a notebook that was executed
    before keeps the values that it was given. Papermill itself leaves out annotations and texts that it cannot read.
    """
    return _assigned(path, "parameters") | _assigned(path, "injected-parameters")


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of what a notebook executes: its code cells with their tags, without outputs and prose."""
    cells = [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in code_cells(path)]
    return checksum(cells)


def named_files(notebook: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files below a notebook's folder that its code names, in a text of its own, and where they are.

    Results of an earlier run are not among them: the notebook writes these itself.
    """
    names = set()
    for cell in code_cells(notebook):
        constants = (node.value for node in ast.walk(_parsed(cell)) if isinstance(node, ast.Constant))
        names |= {value for value in constants if isinstance(value, str) and value}
    folders = [name for name in names if os.path.isdir(notebook.parent / name)]
    for name in sorted(names | {f"{folder}/{name}" for folder in folders for name in names}):  # Path("data") / "d.csv"
        with suppress(OSError, ValueError):
            path = notebook.parent / name
            below = path.resolve().is_relative_to(notebook.parent.resolve())
            if path.is_file() and below and path != notebook and not path.match("results-*.csv"):
                yield name, path


def execute(
    notebook: Notebook,
    output: Path,
    values: dict[str, Any],
    description: str | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: int | None = None,
) -> None:
    """Execute a notebook in a fresh kernel of this interpreter and save it to `output` after each cell.

    Any number of processes can do so at once. With a description there is a progress bar. The kernel works in
    `folder`, else where this process does, and sees this process's environment variables with those of `environment`
    changed. A cell fails after `timeout` seconds.

    Raises CellError at the first cell that fails, after the notebook up to there was saved.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    values = _assigned(notebook.path, "injected-parameters") | values
    try:
        with tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True) as sockets:
            papermill.execute_notebook(
                _whole_files() + _unformatted(notebook.path),
                _whole_files() + _unformatted(output),
                parameters=values,
                kernel_name="python3",
                language="python",
                kernel_manager_class=_kernel_manager(sockets, folder, environment or {}, quiet=not description),
                progress_bar={"desc": description} if description else False,
                execution_timeout=timeout,
                start_timeout=PATIENCE,
                iopub_timeout=PATIENCE,
            )
    except papermill.PapermillExecutionError as error:
        raise CellError(error.exec_count, f"{error.ename}: {error.evalue}") from error
    except Exception as error:  # a kernel that died or never started, a full disk
        started = sum(bool(cell["metadata"].get("papermill", {}).get("start_time")) for cell in code_cells(output))
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, DeadKernelError):
            message += "; most often memory ran out, so shut other kernels down before you go on"
        raise CellError(started, message) from error


@contextmanager
def signals_as_exit(kill_children: bool = True) -> Iterator[list[int]]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into SystemExit with the exit code that shells expect, 128 and the number, and
    kill the kernel.

    SystemExit passes through asyncio, nbclient and papermill, which saves the notebook on its way. Under nohup SIGHUP,
    of a terminal that goes away, stays ignored. Yields the list of signals received.
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
    signals = [signal.SIGINT, signal.SIGTERM]
    if os.name == "posix" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = {each: signal.signal(each, stop) for each in signals}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Let Ctrl-C wait until the end of a block; threads that start in it, and their processes, never see it.

    A terminal sends it to all processes of a command, and those would answer with a traceback each.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # when it starts it lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def allow_open_files() -> None:
    """Let this process and its kernels open enough files; raise ValueError where the system does not allow so many."""
    with suppress(ImportError):  # Windows has no such limit
        import resource

        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= most < OPEN_FILES:  # negative: without a limit
            raise ValueError(f"ulimit -n: {most} files may be open at a time; a run needs {OPEN_FILES} or more")
        if 0 <= now < OPEN_FILES:
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, most))


def absolute(path: str) -> str:
    """Return the absolute path of a file: kernels and `--resume` may start in another folder."""
    return os.path.abspath(os.path.expanduser(path))  # unlike Path's, it leaves the name of an unknown user as it is


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook's file, none if there is no such file or it cannot be read."""
    try:
        return [cell for cell in _content(notebook)["cells"] if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


@cache
def _whole_files() -> str:
    """Return the scheme, put before a path, by which papermill reads a notebook that lacks something, and writes one so
    that it can be read at any moment, also after the run was killed while writing it.
    """
    from papermill.iorw import papermill_io

    def read(path: str) -> str:
        return json.dumps(_content(Path(path.removeprefix(scheme))))

    def write(text: str, path: str) -> None:
        write_text(Path(path.removeprefix(scheme)), text)

    scheme = "file://"
    papermill_io.register(scheme, SimpleNamespace(read=read, write=write, pretty_path=str))
    return scheme


def _kernel_manager(sockets: str, folder: Path | None, environment: Mapping[str, str], quiet: bool) -> type:
    """Return a class that starts this interpreter's kernel in `folder`, with `environment` added to this process's.

    Its sockets lie in `sockets`, an empty folder for this one kernel, and so does IPython's configuration: neither the
    user's nor the working directory's Python files change what a notebook does. A quiet kernel says nothing on the
    terminal.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        """Starts this interpreter's kernel, even where the user installed another one's under the same name."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **settings)
            self.transport_encryption = "auto"  # else each kernel warns on the terminal; older clients ignore it
            self.shutdown_wait_time = 1.0  # a kernel has nothing left to do then, and now and then misses the request
            # A TCP port is found free, let go and told to the kernel; meanwhile another process can be given it, and
            # then this kernel dies or never answers. Files in a folder of its own are nobody else's.
            if os.name == "posix" and len(os.fsencode(sockets)) <= LONGEST_SOCKET_FOLDER:
                self.transport, self.ip = "ipc", f"{sockets}/kernel"

        async def start_kernel(self, **settings: Any) -> None:  # type: ignore[override]  # as its own parent's is
            """Start the kernel where it shall work; papermill's own way moves the whole process there."""
            quiet_debugger = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}  # else older kernels warn on the terminal
            alone = {**quiet_debugger, **os.environ, **environment, "IPYTHONDIR": f"{sockets}/ipython"}
            alone = {name: value for name, value in alone.items() if name not in OTHERS} | {"PYTHONUTF8": "1"}
            settings |= {"cwd": folder and str(folder), "env": alone}
            settings["extra_arguments"] = ["--ignore-cwd", "--InteractiveShellApp.exec_PYTHONSTARTUP=False"]
            if quiet:  # what it says, such as that it was asked to stop, would get in between other bars
                settings["stderr"] = subprocess.DEVNULL
            await super().start_kernel(**settings)

    return ThisInterpreter


def _assigned(path: Path, tag: str) -> dict[str, Any]:
    """Return what the cells with a tag assign, by name; None for more than a literal."""
    found: dict[str, Any] = {}
    for cell in code_cells(path):
        if tag not in cell["metadata"].get("tags", []):
            continue
        for node in _parsed(cell).body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                value = None
                with suppress(ValueError, TypeError, MemoryError, RecursionError):
                    value = ast.literal_eval(node.value) if node.value else None
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return found


def _parsed(cell: Mapping[str, Any]) -> ast.Module:
    """Return a cell's Python without IPython's own commands; nothing of a cell that is no Python."""
    source = re.sub(r"^\s*[%!].*$", "", "".join(cell["source"]), flags=re.MULTILINE)  # what follows %%bash is no Python
    source = re.sub(r"^([\w :.,\[\]]+= *)[%!].*$", r"\1None", source, flags=re.MULTILINE)  # files = !ls
    with suppress(SyntaxError, ValueError):
        return ast.parse(source)
    return ast.Module([], [])


def _content(path: Path) -> dict[str, Any]:
    """Read a notebook's file, and add what nbformat insists on and other programs leave out, also a mark before it."""
    content: dict[str, Any] = {"metadata": {}, "nbformat_minor": 4, **json.loads(path.read_text("utf-8-sig"))}
    for number, cell in enumerate(content["cells"]):
        code = {"execution_count": None, "outputs": list[Any]()} if cell["cell_type"] == "code" else {}
        content["cells"][number] = {"metadata": {}, "source": "", **code, **cell}
    return content


def _title(path: Path) -> str:
    """Return the text of a notebook's first heading, or its file name if it has none."""
    prose = ("".join(cell["source"]) for cell in _content(path)["cells"] if cell["cell_type"] == "markdown")
    heading = re.search("^#+(.*)", "\n".join(prose), re.MULTILINE)
    return heading[1].strip() if heading else path.stem


def _unformatted(path: Path) -> str:
    """Return a path that papermill, which formats paths as templates, leaves as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")
