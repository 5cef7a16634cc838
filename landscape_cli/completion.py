"""Shell completion: our own commands first, the rest is Hydra's. No torch, no composed experiment."""

from __future__ import annotations

import os
import re
import sys

from landscape_cli.data.corpus_sets import CORPUS_SETS
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.errors import BadInput
from landscape_cli.listing import shipped

COMMANDS = ("run", "figures", "list", "show", "data", "doctor")
DATA_ACTIONS = ("list", "fetch", "verify", "where")


def complete(words: list[str]) -> int:
    """Answer ``landscape -sc install=bash`` and the queries that the installed hook makes.

    Hydra takes the first word after the program for an override, so ``run`` is cut out of ``COMP_LINE`` first.
    """
    if len(words) != 1 or not re.fullmatch(r"(install|uninstall|query)=(bash|fish|zsh)", words[0]):
        raise BadInput("-sc takes one of install=bash, uninstall=bash, query=bash (or fish, or zsh)")
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()
    finished = line.endswith(" ")
    query = words[0].startswith("query=")
    if query and (len(typed) < 2 or (len(typed) == 2 and not finished)):
        _print(COMMANDS, typed[1] if len(typed) == 2 else "")
        return 0
    if query and typed[1] != "run":
        last = "" if finished else typed[-1]
        data = (*IMAGE_SETS, *TABLE_SETS, *CORPUS_SETS) if len(typed) + finished > 3 else DATA_ACTIONS
        choices = {"show": tuple(shipped()), "figures": tuple(shipped()), "data": data}.get(typed[1], ())
        _print(choices, last)
        return 0
    if query and (finished or typed[-1].startswith("experiment=") or "=" not in typed[-1]):
        last = "" if finished else typed[-1]
        if last.startswith("experiment="):
            _print([f"experiment={name}" for name in shipped()], last)
            return 0
    return _hydra(words, line)


def _print(choices: tuple[str, ...] | list[str], start: str) -> None:
    print(" ".join(choice for choice in choices if choice.startswith(start)))


def _hydra(words: list[str], line: str) -> int:
    import hydra

    from landscape_cli.config_path import config_folder

    if line:
        program, _, rest = line.partition(" run")
        os.environ["COMP_LINE"] = program + rest
        os.environ["COMP_POINT"] = str(len(program + rest))
    sys.argv = ["landscape", "--shell-completion", *words]
    hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(lambda _: None)()
    return 0
