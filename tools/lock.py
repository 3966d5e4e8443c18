"""Update the exact versions: requirements.lock, with a hash of each file, and the list in environment.yml.

    python tools/lock.py [--upgrade]

Locked versions stay as long as the ranges in pyproject.toml allow them; --upgrade switches to the newest ones. The lock
covers Python 3.11 to 3.13 on every system for which there are packages. environment.yml gets everything needed to run
and compare the notebooks, for the Python version that it names.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK, ENVIRONMENT, PROJECT = ROOT / "requirements.lock", ROOT / "environment.yml", ROOT / "pyproject.toml"
OLDEST_PYTHON, CONDA_PYTHON = "3.11", "3.12"
SYSTEMS = (  # covered by environment.yml
    {"sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64"},
    {"sys_platform": "darwin", "os_name": "posix", "platform_machine": "arm64"},
    {"sys_platform": "win32", "os_name": "nt", "platform_machine": "AMD64"},
)
COMPARE_NOTEBOOKS = {"nbval", "pytest-xdist"}  # the only packages from the extra `test` in environment.yml
HEAD = """# Exact versions with hashes, for Python 3.11 to 3.13. `python tools/lock.py` makes them from pyproject.toml.
# pip install --require-hashes -r requirements.lock && pip install --no-deps -e .
# sha256 of those ranges: {digest}
"""


@dataclass(frozen=True)
class Locked:
    """A package's locked version, the marker of its environments ("" for all), and the packages that need it."""

    name: str
    version: str
    marker: str
    needed_by: frozenset[str]


def ranges(project: str) -> dict[str, list[str]]:
    """Return the requirements in pyproject.toml's text, by extra; "" stands for the package itself."""
    declared = tomllib.loads(project)["project"]
    return {"": declared["dependencies"], **declared["optional-dependencies"]}


def digest(project: str) -> str:
    """Return the SHA-256 of the ranges, which identifies the source of a lock."""
    return hashlib.sha256(json.dumps(ranges(project), sort_keys=True).encode()).hexdigest()


def read(lock: str) -> list[Locked]:
    """Read a lock: `name==version ; marker`, then hashes, then comments on which packages need it."""
    entries = []
    for block in re.split(r"\n(?=\S)", lock):
        if found := re.match(r"([\w.-]+)==(\S+?)(?: ; (.+?))? \\\n", block):
            needed_by = re.findall(r"^    # +(?:via )?([\w.-]+)", block, re.MULTILINE)
            entries.append(Locked(*found.groups(default=""), frozenset(needed_by) - {"via"}))
    return entries


def environment(locked: list[Locked], project: str) -> list[str]:
    """Return the lines of environment.yml's list: what the package and the comparison of notebooks need."""
    wanted = {canonicalize_name(re.match(r"[\w.-]+", line)[0]) for line in ranges(project)[""]} | COMPARE_NOTEBOOKS
    while more := {entry.name for entry in locked if entry.needed_by & wanted} - wanted:
        wanted |= more
    lines = []
    for entry in locked:
        python = {"python_version": CONDA_PYTHON, "python_full_version": f"{CONDA_PYTHON}.99"}
        used = [not entry.marker or Marker(entry.marker).evaluate({**system, **python}) for system in SYSTEMS]
        if entry.name in wanted and any(used):
            marker = "" if all(used) else f" ; {entry.marker}"
            lines.append(f"{entry.name}=={entry.version}{marker}")
    return lines


def main() -> None:
    """Ask uv for the versions, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="use the newest versions within the ranges")
    chosen = parser.parse_args()
    options = ["--extra", "test", "--extra", "class", "--universal", "--generate-hashes", "--no-header", "--quiet"]
    command = [sys.executable, "-m", "uv", "pip", "compile", PROJECT.name, "--output-file", LOCK.name, *options]
    command += ["--python-version", OLDEST_PYTHON]
    subprocess.run(command + ["--upgrade"] * chosen.upgrade, cwd=ROOT, check=True)
    project, lock = PROJECT.read_text(encoding="utf-8"), LOCK.read_text(encoding="utf-8")
    LOCK.write_text(HEAD.format(digest=digest(project)) + lock, encoding="utf-8")
    before, _, _ = ENVIRONMENT.read_text(encoding="utf-8").partition("  - pip:\n")
    lines = environment(read(lock), project)
    ENVIRONMENT.write_text(f"{before}  - pip:\n" + "".join(f"      - {line}\n" for line in lines), encoding="utf-8")
    print(f"{len(read(lock))} versions in {LOCK.name}, {len(lines)} of them in {ENVIRONMENT.name}")


if __name__ == "__main__":
    main()
