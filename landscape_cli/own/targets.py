"""Dotted paths in a configuration: what they name, called with its arguments; whatever is wrong said in one line."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from landscape_cli.errors import BadInput, LandscapeError
from landscape_cli.validation import nearest

PACKAGE = Path(__file__).resolve().parents[1]


def find(path: Any, key: str) -> Any:
    """Import what a dotted path names, from the current folder, ``$PYTHONPATH`` or an installed package.

    Parameters
    ----------
    path
        ``package.module.Name``.
    key
        Of the configuration, for messages.

    Raises
    ------
    BadInput
        There is no such module or name, or importing it fails.
    """
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise BadInput(f"{key}: {path!r}; allowed: a dotted path, package.module.Name or module.Name")
    if os.getcwd() not in sys.path:  # a console script has its own folder there instead
        sys.path.insert(0, os.getcwd())
    if parts[0] == "torchvision":
        import landscape_cli.data.torchvision_import  # noqa: F401  a plain import fails beside a CPU-only torch
    for count in range(len(parts) - 1, 0, -1):
        module = _imported(".".join(parts[:count]), key, path)
        if module is not None:
            return _attribute(module, parts, count, key)
    known = {module.name for module in pkgutil.iter_modules()}
    raise BadInput(
        f"{key}: {path!r}: there is no module {parts[0]!r} in the current folder, on PYTHONPATH or installed"
        f"{nearest(parts[0], known)}"
    )


def build(target: Any, arguments: Mapping[str, Any], key: str) -> Any:
    """Call what a dotted path names.

    Parameters
    ----------
    target
        ``package.module.Name`` of a class or function.
    arguments
        By name. A mapping with a ``_target_`` of its own is built first; with ``_partial_: true`` it is passed on as a
        function that lacks nothing but what it is called with.
    key
        Of the node, for messages: ``model`` or ``dataset``.

    Raises
    ------
    BadInput
        It cannot be imported or called, does not take the arguments, or raises.
    """
    callee = find(target, f"{key}._target_")
    if not callable(callee):
        raise BadInput(
            f"{key}._target_: {target} is of the type {type(callee).__name__}, which cannot be called; allowed: a "
            "class or a function"
        )
    given = {name: _value(value, f"{key}.{name}") for name, value in arguments.items()}
    _check_arguments(callee, given, target, key)
    with explained(f"{key}._target_: {target}"):
        return callee(**given)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what a user's code raises into one line that says where.

    Raises
    ------
    BadInput
        For any exception that is not one of this package's own.
    """
    try:
        yield
    except LandscapeError:
        raise
    except Exception as error:
        raise BadInput(f"{what} raised {type(error).__name__}: {_brief(error)}{_where(error)}") from error


@contextmanager
def seeded(number: int) -> Iterator[None]:
    """Let the global generators of Python, numpy and torch start from a number, and put them back afterwards.

    A user's code draws from any of them.
    """
    import numpy as np
    import torch

    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number % 2**32)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def targets(node: Any) -> list[str]:
    """List the dotted paths in a node, its own first."""
    if isinstance(node, Mapping):
        own = [node["_target_"]] if isinstance(node.get("_target_"), str) else []
        return own + [path for name, value in node.items() if name != "_target_" for path in targets(value)]
    return [path for value in node for path in targets(value)] if isinstance(node, list) else []


def _imported(name: str, key: str, path: str) -> Any:
    """Import a module; None if it or a package around it is not there."""
    try:
        try:
            return importlib.import_module(name)
        except RuntimeError as error:
            if "operator torchvision::" not in str(error):
                raise
            import landscape_cli.data.torchvision_import  # noqa: F401

            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise BadInput(f"{key}: {path!r}: importing {name} needs {error.name!r}, which is not there") from error
    except Exception as error:
        raise BadInput(
            f"{key}: {path!r}: importing {name} raised {type(error).__name__}: {_brief(error)}{_where(error)}"
        ) from error


def _attribute(module: Any, parts: list[str], count: int, key: str) -> Any:
    found = module
    for place in range(count, len(parts)):
        try:
            found = getattr(found, parts[place])
        except AttributeError as error:
            holder = ".".join(parts[:place])
            names = [name for name in dir(found) if not name.startswith("_")]
            raise BadInput(
                f"{key}: {'.'.join(parts)!r}: {holder} has no {parts[place]!r}{nearest(parts[place], names)}"
            ) from error
    return found


def _value(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if "_target_" not in value:
            return {name: _value(one, f"{key}.{name}") for name, one in value.items()}
        arguments = {name: one for name, one in value.items() if name not in ("_target_", "_partial_")}
        if value.get("_partial_"):
            given = {name: _value(one, f"{key}.{name}") for name, one in arguments.items()}
            return functools.partial(find(value["_target_"], f"{key}._target_"), **given)
        return build(value["_target_"], arguments, key)
    if isinstance(value, list):
        return [_value(one, f"{key}.{number}") for number, one in enumerate(value)]
    return value


def _check_arguments(callee: Callable[..., Any], given: Mapping[str, Any], target: str, key: str) -> None:
    try:
        signature = inspect.signature(callee)
    except (ValueError, TypeError):  # some builtins have none
        return
    parameters = signature.parameters
    plain = {name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes = f"{target} takes {_written(signature)}"
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in given:
            if name not in plain:
                raise BadInput(f"{key}.{name}: {target} has no such argument{nearest(name, plain)}; {takes}")
    for name, parameter in parameters.items():
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variable and name not in given:
            raise BadInput(f"{key}.{name}: {target} needs it; give {key}.{name}=…; {takes}")


def _written(signature: inspect.Signature) -> str:
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no message"


def _where(error: BaseException) -> str:
    """File and line of the last frame that is neither this package's nor torch's: where a user looks first."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename and PACKAGE not in Path(f.filename).parents]
    own = [frame for frame in own if not frame.filename.startswith("<") and "importlib" not in frame.filename]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
