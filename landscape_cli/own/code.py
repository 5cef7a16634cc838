"""The source files behind a dotted path: a user's modules by digest, installed packages by version."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from landscape_cli.own.targets import PACKAGE, find

_INSTALLED = ("site-packages", "dist-packages")
_LIBRARY = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


def code_of(paths: Iterable[str], key: str) -> dict[str, str]:
    """Say which code stands behind dotted paths.

    Parameters
    ----------
    paths
        Of classes and functions.
    key
        Of the configuration, for messages.

    Returns
    -------
    Of the module that defines each and of those of the user's that it imports, by whatever way of importing is written
    in their source, name -> digest; of an installed package, name -> version.
    """
    found: dict[str, str] = {}
    for path in paths:
        named = find(path, key)
        parts = path.split(".")
        modules = {name for name in (".".join(parts[:n]) for n in range(1, len(parts))) if name in sys.modules}
        modules.add(getattr(named, "__module__", None) or parts[0])
        for module in sorted(modules):
            _follow(module, found)
    return dict(sorted(found.items()))


def _follow(name: str, found: dict[str, str]) -> None:
    """Add a module and, if it is the user's, those that it imports."""
    waiting = [name]
    while waiting:
        module = waiting.pop()
        top = module.partition(".")[0]
        if module in found:
            continue
        file = _file(module)
        if file is None:
            continue
        if not _own(file):
            if module == name and top not in ("landscape_cli", "experiments", "builtins"):
                found[top] = _version(top)
            continue
        source = file.read_bytes()
        found[module] = hashlib.blake2b(source, digest_size=8).hexdigest()
        waiting += _imports(source, module, file.name == "__init__.py")


def _imports(source: bytes, module: str, package: bool) -> Iterator[str]:
    """Names of the modules that a source may import, wherever in it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a compiled or damaged file: it says nothing of what it imports
        return
    parents = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            around = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*around, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = [part for part in name.split(".") if part]
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _file(module: str) -> Path | None:
    """The file of a module, without importing what is not imported yet, but for packages of the user's."""
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if loaded is None:
        top = module.partition(".")[0]
        if module != top and ((around := _file(top)) is None or not _own(around)):
            return None
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError, AttributeError):  # a name that is no module
            return None
        file = spec.origin if spec else None
    return Path(file) if file and file.endswith(".py") else None


def _own(file: Path) -> bool:
    """Whether a file is the user's: neither of an installed package, nor of Python, nor of this project."""
    file = file.absolute()
    if any(part in _INSTALLED for part in file.parts):
        return False
    places = (*_LIBRARY, PACKAGE, PACKAGE.parent / "experiments")
    return not any(file.is_relative_to(place) for place in places)


def _version(package: str) -> str:
    distributions = metadata.packages_distributions().get(package, [package])
    try:
        return metadata.version(distributions[0])
    except metadata.PackageNotFoundError:
        return "unknown"
