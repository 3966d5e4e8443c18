"""Everything that an operating system can do to a process: signals, lost streams, missing folders, limits, locks."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

OPEN_FILES = 256  # needed at once by a run and its kernels; one kernel opens more than 64


def prepare() -> None:
    """Set up anything that a machine may lack: standard streams, a home folder, absolute paths in the environment.

    Raises ValueError if the working directory is gone.
    """
    _repair_streams()
    if os.path.expanduser("~") == "~":  # an unknown user ID, as in some containers
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        os.getcwd()
    except OSError as error:
        raise ValueError("the current folder is gone; cd to a different one") from error
    os.environ.pop("MPLBACKEND", None)  # no window ever opens, but an unknown name would raise an error
    for name in ("MNIST_NPZ", "TRANSFER_TUTORIAL_DATA"):  # they name files
        if os.environ.get(name):
            os.environ[name] = absolute(os.environ[name])


def absolute(path: str) -> str:
    """Return the absolute path of a file, because kernels and `--resume` may start in a different folder."""
    return os.path.abspath(os.path.expanduser(path))  # unlike Path, it keeps an unknown user's ~name


class _Lossy:
    """Standard output or error: if its terminal or reader goes away, the text is lost, but the work goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        with suppress(AttributeError):  # a stream from another program
            stream.reconfigure(errors="backslashreplace")  # for characters that it cannot encode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:  # discard the buffer, or Python fails to flush it at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def _repair_streams() -> None:
    """Open standard streams that were closed before this process began, and make the output streams lossy."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # takes the closed stream's number before any file does
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, mode))
    sys.stdout, sys.stderr = cast(TextIO, _Lossy(sys.stdout)), cast(TextIO, _Lossy(sys.stderr))


@contextmanager
def signals_as_exit(kill_children: bool = True) -> Iterator[list[int]]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into SystemExit with the usual exit code, 128 plus the signal's number, and kill
    child processes such as kernels. Yields the list of received signals.

    SystemExit passes through asyncio, nbclient and papermill, which saves the notebook on the way out. Under nohup,
    SIGHUP stays ignored.
    """
    import psutil

    def stop(number: int, frame: object) -> None:
        received.append(number)
        for caught in signals:  # a second Ctrl-C must not interrupt the saving of results
            signal.signal(caught, signal.SIG_IGN)
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
    handlers = {caught: signal.signal(caught, stop) for caught in signals}
    try:
        yield received
    finally:
        for caught, handler in handlers.items():
            signal.signal(caught, handler)


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Hold back Ctrl-C until the end of a block; threads started in it, and their processes, never receive it.

    A terminal sends Ctrl-C to all processes of a command, and each one would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting it later would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def allow_open_files() -> None:
    """Raise the limit on open files for this process and its kernels; raise ValueError if the system allows too few."""
    with suppress(ImportError):  # Windows has no such limit
        import resource

        limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= highest < OPEN_FILES:  # negative: unlimited
            raise ValueError(f"ulimit -n: a limit of {highest} open files is too low; raise it to {OPEN_FILES} or more")
        if 0 <= limit < OPEN_FILES:
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, highest))


@contextmanager
def lock(parameter: str, folder: Path) -> Iterator[None]:
    """Lock a folder for this process for the length of a block; raise ValueError if another process has locked it.

    The system locks the folder itself, so no file is left behind and the lock ends with the process. Where such locks
    do not exist (Windows, some network drives), nobody is locked out, but files are still written whole.
    """
    with ExitStack() as held:
        try:
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.callback(fcntl.flock, handle, fcntl.LOCK_UN)  # closing alone would leave the lock with a forked child
        except BlockingIOError as error:
            raise ValueError(
                f"{parameter}: another process is working in {str(folder)!r}; wait until it ends, or stop it first"
            ) from error
        except (ImportError, OSError):
            pass
        yield
