"""Notebooks: find a lesson or a custom notebook, read its parameters and code, and execute it in a separate kernel."""

import ast
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from helpers import provenance
from helpers.folders import INSTALLED, PACKAGE, REPOSITORY
from helpers.runner.process import absolute
from helpers.store import checksum, write_text

LESSONS = (PACKAGE if INSTALLED else REPOSITORY) / "notebooks"
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # a kernel's
NOT_INHERITED = ("PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONOPTIMIZE", "PYTHONIOENCODING", "MPLBACKEND")  # by kernels
PATIENCE = 600  # seconds for a kernel to start, or to send a cell's last output, on a busy machine
LONGEST_SOCKET_FOLDER = 90  # bytes; a socket's whole path has at most 103 on macOS, 107 on Linux


class CellError(RuntimeError):
    """A notebook stopped at a failing cell; `cell` is the number in its `In [...]`."""

    def __init__(self, cell: int, message: str) -> None:
        super().__init__(message)
        self.cell = cell


@dataclass(frozen=True)
class Notebook:
    """A notebook: number "03", name "03_pretraining", the title in its first heading, and its file.

    Lessons have a number; a custom notebook has none.
    """

    number: str
    name: str
    title: str
    path: Path


@dataclass(frozen=True)
class KernelSettings:
    """A kernel's working directory (None: this process's), extra environment variables, and time limit per cell."""

    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: int | None = None


def lessons(numbers: Iterable[str] | None = None) -> list[Notebook]:
    """Return the lessons with these numbers, or all of them, in order; raise ValueError if there are none."""
    known = [
        Notebook(path.name.split("_")[0], path.stem, _title(path), path)
        for path in sorted(LESSONS.glob("[0-9][0-9]_*.ipynb"))
    ]
    if not known:
        raise ValueError(f"lessons: there are none in {str(LESSONS)!r}; reinstall the course")
    if numbers is None:
        return known
    chosen = {lesson(number.strip()) for number in numbers}
    return [candidate for candidate in known if candidate in chosen]


def lesson(number: str, else_allowed: str = "") -> Notebook:
    """Return a lesson given as "03", "3" or "03_pretraining"; raise ValueError if it does not exist."""
    known = lessons()
    for candidate in known:
        if number in (candidate.name, candidate.number, str(int(candidate.number))):
            return candidate
    allowed = ", ".join(candidate.name for candidate in known) + ", or the number alone, such as 05" + else_allowed
    raise ValueError(f"lesson: {number!r} is not known; allowed: {allowed}")


def find(name: str) -> Notebook:
    """Return a lesson by its number or name, or a notebook by its path; raise ValueError if it does not exist."""
    if not name.endswith(".ipynb"):
        return lesson(name, ", or the path of a notebook, which ends in .ipynb")
    path = Path(absolute(name))
    try:
        custom, metadata = Notebook("", path.stem, _title(path), path), _read(path)["metadata"]
        language = {"language": "python", **metadata.get("kernelspec", {})}["language"]
    except OSError as error:
        raise ValueError(f"notebook: there is no readable file {name!r}; give the path of a notebook") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"notebook: {name!r} is not a notebook in format 4, JSON with a list of cells") from error
    if language.lower() != "python":
        raise ValueError(f"notebook: {name!r} is written in {language}; use one in Python")
    return next((lesson for lesson in lessons() if lesson.path == path.resolve()), custom)


def defaults(path: Path) -> dict[str, Any]:
    """Return the default of each parameter of a notebook by name; a default that must be computed becomes None.

    Defaults come from the cell tagged `parameters` and from papermill's injected cell, so an executed notebook keeps
    the values that it was given. Papermill's function for this omits annotations and anything that it cannot parse.
    """
    return _assigned(path, "parameters") | _assigned(path, "injected-parameters")


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a notebook's code cells with their tags, without outputs and prose."""
    cells = [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in code_cells(path)]
    return checksum(cells)


def code(path: Path) -> str:
    """Return the SHA-256 of the code of `helpers` that a notebook's results depend on."""
    return provenance.code_of(name for cell in code_cells(path) for name in provenance.imported(_parsed(cell)))


def named_files(notebook: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of each file below a notebook's folder that its code names in a string, except its results."""
    names = set()
    for cell in code_cells(notebook):
        constants = (node.value for node in ast.walk(_parsed(cell)) if isinstance(node, ast.Constant))
        names |= {value for value in constants if isinstance(value, str) and value}
    folders = [name for name in names if os.path.isdir(notebook.parent / name)]
    for name in sorted(names | {f"{folder}/{name}" for folder in folders for name in names}):  # Path("data") / "d.csv"
        with suppress(OSError, ValueError):
            path = notebook.parent / name
            below = path.resolve().is_relative_to(notebook.parent.resolve())
            earlier = path.match("results-*.csv") or path.match("extra-*")
            if path.is_file() and below and path != notebook and not earlier:
                yield name, path


def execute(
    notebook: Notebook,
    output: Path,
    values: dict[str, Any],
    settings: KernelSettings | None = None,
    description: str | None = None,
) -> None:
    """Execute a notebook in a fresh kernel of this interpreter and save it to `output` after each cell.

    With a description, a progress bar appears; without one, even the kernel's own messages are hidden. Raises
    CellError at the first failing cell, after saving the notebook up to that point.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    values, settings = _assigned(notebook.path, "injected-parameters") | values, settings or KernelSettings()
    try:
        with tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True) as sockets:
            papermill.execute_notebook(
                _papermill_path(notebook.path),
                _papermill_path(output),
                parameters=values,
                kernel_name="python3",
                language="python",
                kernel_manager_class=_kernel_manager(sockets, settings.environment, quiet=not description),
                extra_arguments=["--ignore-cwd", "--InteractiveShellApp.exec_PYTHONSTARTUP=False", "--log-level=50"],
                resources={"metadata": {"path": settings.folder and str(settings.folder)}},
                progress_bar={"desc": description, "disable": None} if description else False,
                execution_timeout=settings.timeout,
                start_timeout=PATIENCE,
                iopub_timeout=PATIENCE,
            )
    except papermill.PapermillExecutionError as error:
        raise CellError(error.exec_count, f"{error.ename}: {error.evalue}") from error
    except Exception as error:  # a kernel that died or never started, or a full disk
        started = sum(bool(cell["metadata"].get("papermill", {}).get("start_time")) for cell in code_cells(output))
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, DeadKernelError):
            message += "; the machine probably ran out of memory, so shut down other kernels before you resume"
        raise CellError(started, message) from error


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook's file, or none if the file is missing or unreadable."""
    try:
        return [cell for cell in _read(notebook)["cells"] if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _kernel_manager(sockets: str, environment: Mapping[str, str], quiet: bool) -> type:
    """Return a class that starts this interpreter's kernel with `environment` added to that of this process.

    `sockets` is an empty folder for this kernel alone. It also serves as IPython's configuration folder, so that
    neither the user's startup files nor modules in the working directory change a notebook's behavior.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        """Starts this interpreter's kernel, even if the user has installed a different one under the same name."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **settings)
            self.transport_encryption = "auto"  # otherwise kernels warn on the terminal; older clients ignore it
            self.shutdown_wait_time = 1.0  # the kernel is idle by then, and sometimes misses the request
            # A TCP port is chosen, released and passed to the kernel. If a different process takes it first, the
            # kernel dies or never answers. Socket files in a private folder are safe.
            if os.name == "posix" and len(os.fsencode(sockets)) <= LONGEST_SOCKET_FOLDER:
                self.transport, self.ip = "ipc", f"{sockets}/kernel"

        async def start_kernel(self, **settings: Any) -> None:  # type: ignore[override]  # like its own parent
            """Start the kernel with its environment; nbclient has no option for that."""
            inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
            own = {"IPYTHONDIR": f"{sockets}/ipython", "PYTHONUTF8": "1"}
            own["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # otherwise older kernels warn on the terminal
            if quiet:  # its messages would break up progress bars
                settings["stderr"] = subprocess.DEVNULL
            await super().start_kernel(env={**inherited, **environment, **own}, **settings)

    return ThisInterpreter


def _papermill_path(path: Path) -> str:
    """Return a path for papermill, with our own scheme, and with braces doubled for papermill, which fills them in."""
    return _own_files() + str(path).replace("{", "{{").replace("}", "}}")


@cache
def _own_files() -> str:
    """Register a reader and a writer with papermill, and return their scheme, a prefix of paths. They can read
    incomplete notebooks, and write only whole files, so that a notebook stays readable even if the run is killed.
    """
    from papermill.iorw import papermill_io

    def read(path: str) -> str:
        return json.dumps(_read(Path(path.removeprefix(scheme))))

    def write(text: str, path: str) -> None:
        write_text(Path(path.removeprefix(scheme)), text)

    scheme = "file://"
    papermill_io.register(scheme, SimpleNamespace(read=read, write=write, pretty_path=str))
    return scheme


def _assigned(path: Path, tag: str) -> dict[str, Any]:
    """Return, by name, the values that the cells with a tag assign; anything but a literal becomes None."""
    assigned: dict[str, Any] = {}
    for cell in code_cells(path):
        if tag not in cell["metadata"].get("tags", []):
            continue
        for node in _parsed(cell).body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                value = None
                with suppress(ValueError, TypeError, MemoryError, RecursionError):
                    value = _literal(node.value) if node.value else None
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                assigned |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return assigned


def _literal(node: ast.expr) -> Any:
    """Evaluate a literal, or turn a range of literals, which papermill and JSON cannot pass on, into a list."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "range":
        return list(range(*map(ast.literal_eval, node.args)))
    return ast.literal_eval(node)


def _parsed(cell: Mapping[str, Any]) -> ast.Module:
    """Parse a cell's Python without IPython's commands; for a cell in a different language, return an empty module."""
    source = re.sub(r"^\s*[%!].*$", "", "".join(cell["source"]), flags=re.MULTILINE)  # cells with %%bash fail below
    source = re.sub(r"^([\w :.,\[\]]+= *)[%!].*$", r"\1None", source, flags=re.MULTILINE)  # files = !ls
    with suppress(SyntaxError, ValueError):
        return ast.parse(source)
    return ast.Module([], [])


def _read(path: Path) -> dict[str, Any]:
    """Read a notebook's file, with or without a byte-order mark, and add the keys that nbformat requires but other
    programs omit.
    """
    content: dict[str, Any] = {"metadata": {}, "nbformat_minor": 4, **json.loads(path.read_text("utf-8-sig"))}
    for number, cell in enumerate(content["cells"]):
        code = {"execution_count": None, "outputs": list[Any]()} if cell["cell_type"] == "code" else {}
        content["cells"][number] = {"metadata": {}, "source": "", **code, **cell}
    return content


def _title(path: Path) -> str:
    """Return the text of a notebook's first heading, or its file name if there is none."""
    prose = ("".join(cell["source"]) for cell in _read(path)["cells"] if cell["cell_type"] == "markdown")
    heading = re.search("^#+(.*)", "\n".join(prose), re.MULTILINE)
    return heading[1].strip() if heading else path.stem
