"""The course's own folder, the run folder, and the result rows that lessons save there."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from helpers.store import write_text

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent
INSTALLED = (PACKAGE / "notebooks").is_dir()  # from a wheel, which has the lessons inside the package


def run_folder(run_dir: str = "runs/lessons") -> Path:
    """Return the run folder: `run_dir` in `$TRANSFER_TUTORIAL_HOME` or, if that is not set, in the repository, wherever
    Python was started (in the working directory if the course was installed from a wheel).

    Raises ValueError if the folder is not writable, so that a lesson fails before its first training run.
    """
    if not isinstance(run_dir, str) or not run_dir:
        raise ValueError(f'run_dir: {run_dir!r} is not a folder; give a path such as "runs/lessons"')
    home = os.environ.get("TRANSFER_TUTORIAL_HOME") or (Path.cwd() if INSTALLED else REPOSITORY)
    folder = Path(os.path.expanduser(home), os.path.expanduser(run_dir))
    check_folder("run_dir", run_dir, folder)
    return folder


def check_folder(parameter: str, given: str, folder: Path) -> None:
    """Raise ValueError unless a folder is writable, or would be if it were created; this function creates nothing."""
    try:
        str(folder).encode()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if there.is_dir():
            why = "" if os.access(there, os.W_OK | os.X_OK) else "cannot be written to"
        else:
            why = "is a file" if there == folder else f"is inside {there.name!r}, which is a file"
    except UnicodeEncodeError:
        why = "is not valid UTF-8"  # a notebook could not contain the name
    except OSError as error:  # a name that is too long, a folder without permission
        why = f"cannot be used ({error.strerror})"
    if why:
        raise ValueError(f"{parameter}: {given!r} {why}; choose a writable folder, which need not exist yet")


def save_results(folder: Path, lesson: str, rows: "pd.DataFrame") -> Path:
    """Save a lesson's result rows, one per training run, as `results-<lesson>.csv` in the run folder; return the path.

    The command line sets `$TRANSFER_TUTORIAL_RESULTS` to a different folder, so that runs with the same run folder keep
    their own rows.
    """
    path = Path(os.environ.get("TRANSFER_TUTORIAL_RESULTS") or folder) / f"results-{lesson}.csv"
    write_text(path, rows.assign(lesson=lesson).set_index("lesson").to_csv())
    return path


def read_results(tables: Iterable[Path | TextIO]) -> "pd.DataFrame":
    """Read tables of result rows into one, as text, so that no digit is lost; skip empty and damaged tables."""
    import pandas as pd

    found = []
    for table in tables:
        with suppress(ValueError):
            found.append(pd.read_csv(table, dtype=str, keep_default_na=False))
    return pd.concat(found or [pd.DataFrame(columns=["lesson"])], ignore_index=True).fillna("")
