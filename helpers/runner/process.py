"""What the operating system can do to a process."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def lock(parameter: str, folder: Path) -> Iterator[None]:
    """Lock a folder for this process for the length of a block; raise ValueError if another process has locked it.

    The system locks the folder itself, so no file is left behind and the lock ends with the process. Without such a
    lock (Windows, some network drives) nobody is kept out, but files are still whole.
    """
    with ExitStack() as held:
        try:
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.callback(fcntl.flock, handle, fcntl.LOCK_UN)  # closing leaves it to a child that was forked meanwhile
        except BlockingIOError as error:
            raise ValueError(
                f"{parameter}: another process is at work in {str(folder)!r}; wait until it ends, or stop it first"
            ) from error
        except (ImportError, OSError):
            pass
        yield
