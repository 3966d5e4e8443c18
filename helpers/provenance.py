"""Provenance: the package versions and the code that a result depends on, besides data, parameters and seed.

Comments, docstrings and uninvolved modules are ignored, so editing them does not invalidate saved results.
"""

import ast
import importlib.metadata
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from helpers.store import checksum

PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn")
DECIDE_NOTHING = ("checks", "folders", "messages", "plots", "provenance", "runner", "store")  # cannot change a result
SOURCES = {  # by module, at import time: a kernel keeps running the code that it has loaded
    ".".join(path.relative_to(Path(__file__).parent).with_suffix("").parts): path.read_bytes()
    for path in sorted(Path(__file__).parent.rglob("*.py"))
    if path.parent.name != ".ipynb_checkpoints"  # JupyterLab's copies of open files
}


def provenance(**values: Any) -> dict[str, Any]:
    """Return a trained network's provenance: the given values, package versions, and a digest of its code."""
    origin: dict[str, Any] = json.loads(json.dumps({**values, **_trained_with()}))
    return origin


@cache  # needed for each network, and constant within a process
def _trained_with() -> dict[str, Any]:
    return {"versions": {package: version(package) for package in PACKAGES}, "code": code_of(["experiment"])}


def code_of(modules: Iterable[str]) -> str:
    """Return the SHA-256 of some modules of `helpers` and all their imports, except modules that affect no result."""
    taking_part, waiting = set[str](), list(modules)
    while waiting:
        module = waiting.pop()
        if module in SOURCES and module not in taking_part and module.split(".")[0] not in DECIDE_NOTHING:
            taking_part.add(module)
            waiting += imported(_tree(module))
    return checksum({module: digest(module) for module in taking_part})


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the modules of `helpers` that Python code imports, even inside functions."""
    for node in ast.walk(tree):
        names = list[str]()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            below = name.removeprefix("helpers.")
            if below != name:
                yield below if below in SOURCES else below.rpartition(".")[0]


@cache
def digest(module: str) -> str:
    """Return the SHA-256 of a module's code, without comments and docstrings."""
    tree = ast.parse(SOURCES[module])  # not the cached tree, because this one is modified
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return checksum(ast.dump(tree))


def version(package: str) -> str:
    """Return the installed version of a package; TensorFlow also comes as tensorflow-cpu and the like."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    others = importlib.metadata.packages_distributions().get(package)
    return importlib.metadata.version(others[0]) if others else "unknown"


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module])
