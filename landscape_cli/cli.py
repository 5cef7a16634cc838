"""The command line: commands, messages, exit codes. Imports nothing heavy at the top."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from landscape_cli import __version__
from landscape_cli.errors import INTERRUPTED, BadInput, close_output, say
from landscape_cli.memory import keep_freed_memory

RUN_HELP = """\
usage: landscape run [experiment=NAME] [key=value …] [--dry-run] [--debug]
       landscape run -m experiment=A,B key=1,2,3 …

Measures what is missing of an experiment, then draws its figures, tables and claims. Without a name: the quickstart.

  experiment=NAME        one of `landscape list`
  profile=NAME           paper (the thesis's sizes, default), quick, embedded (no data needed), smoke
  key=value              any key that `landscape show NAME` prints, for example seeds=10 training.epochs=3
  sweep=full             every combination of the grid's axes, not one axis at a time
  -m, --multirun         one job for each combination of comma-separated values; 'experiment=glob(*)' takes all
  shard.count=N shard.index=I   measure every N-th point only, from the I-th on (with -m: 'shard.index=range(N)')
  --dry-run              list the points, stored and missing, and measure nothing
  --debug                tracebacks instead of one-line errors
  --cfg job              print the composed configuration
"""

SUBMIT_HELP = """\
landscape submit fc_mnist conv_layers jobs=8 partition=gpu time=120 gpus_per_node=1 profile=quick

  NAME …                 experiments of `landscape list`
  jobs=N                 how many jobs share the missing points, by their estimated cost
  partition= time= (minutes) cpus_per_task= mem_gb= gpus_per_node= account= qos= constraint= nodelist= exclude=
                         go to Slurm; slurm.NAME=VALUE is any other option of sbatch
  array_parallelism=N    at most N jobs at once
  warning=SECONDS        before the time limit a job goes into the queue again (120, less for short limits)
  key=value              any key of the experiments' configuration; checkpoint=true keeps long trainings by the epoch

Prints the jobs' numbers and returns. A job whose code or configuration has changed meanwhile stops (allow_changes=true
lets it run). `landscape status` says how jobs and points stand.
"""

REPRODUCE_HELP = """\
landscape reproduce profile=quick              every figure and table of the thesis, and its theorems, small
landscape reproduce --beyond profile=quick     and what the thesis lacks
landscape reproduce fc_mnist conv_layers       some experiments, at the thesis's size

Goes on past failures and ends with a table: drawn, failed and why, data missing and how to get it. The same command
again measures only what is missing. Exit codes: 0; 3 if only data is missing; 1 if anything else went wrong.
"""

REPORT_HELP = """\
landscape report                               what was drawn with the largest profile
landscape report profile=quick                 what was drawn with these overrides

Writes index.html (one file: no script, no network), claims.csv and thesis.tex to report/, or to a folder of its own in
report/ where a larger profile was drawn too.
"""


def main() -> None:
    """Entry point of the console script."""
    keep_freed_memory()
    sys.exit(dispatch(sys.argv[1:]))


def dispatch(words: Sequence[str]) -> int:
    """Run one command and return its exit code; expected errors become one line on stderr."""
    words = list(words)
    try:
        if words and words[0] in ("-sc", "--shell-completion"):
            from landscape_cli.completion import complete

            return complete(words[1:])
        if words[:1] == ["run"]:
            return _run(words[1:])
        arguments = _parser().parse_args(words)
        return arguments.command(arguments)
    except BrokenPipeError:
        return close_output()
    except KeyboardInterrupt:
        print("landscape: stopped", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        return say(error)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="landscape",
        description="How a model's loss surface settles as data grows, how sharp it is, and how much data is enough.",
    )
    parser.add_argument("--version", action="version", version=f"landscape {__version__}")
    parser.add_argument("--debug", action="store_true", help="tracebacks instead of one-line errors")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="measure what is missing of an experiment, then draw (run --help)")
    run.set_defaults(command=lambda _: _run([]))

    names = {"nargs": "*", "default": [], "metavar": "NAME or key=value"}
    whole = commands.add_parser(
        "reproduce",
        help="every experiment in order of cost, past failures, then the report (reproduce --help)",
        epilog=REPRODUCE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("words", **names)
    whole.add_argument("--jobs", type=_count, help="processes that share the experiments (one a core; with a GPU one)")
    whole.add_argument("--beyond", action="store_true", help="also the experiments that the thesis lacks")
    whole.set_defaults(command=_reproduce)

    jobs = commands.add_parser(
        "submit",
        help="the missing points of experiments as jobs of a Slurm cluster (submit --help)",
        epilog=SUBMIT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    jobs.add_argument("words", nargs="*", default=[], metavar="NAME or key=value")
    jobs.set_defaults(command=_submit)

    status = commands.add_parser("status", help="stored, running, queued, failed and missing points; jobs")
    status.add_argument("names", nargs="*", default=[], metavar="NAME", help="experiments; none: all that were run")
    status.set_defaults(command=_status)

    work = commands.add_parser("work", help="one job of a submission (what Slurm runs)")
    work.add_argument("folder", help="of the submission")
    work.add_argument("number", type=int, help="of the job")
    work.set_defaults(command=_work)

    figures = commands.add_parser("figures", help="draw from stored results, measuring nothing")
    figures.add_argument("names", help="experiments and overrides; none: all", **names)
    figures.add_argument("--chapter", type=int, choices=(1, 2, 3, 4), help="the experiments of one chapter")
    figures.set_defaults(command=_figures)

    report = commands.add_parser(
        "report",
        help="one page with every figure, table, claim and theorem that was drawn (report --help)",
        epilog=REPORT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("words", nargs="*", default=[], metavar="key=value")
    report.set_defaults(command=_report)

    listing = commands.add_parser("list", help="experiments, the thesis figures and tables each makes, their state")
    listing.set_defaults(command=_list)

    show = commands.add_parser("show", help="one experiment: what it does, its grid, its points, its configuration")
    show.add_argument("name", metavar="NAME")
    show.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    show.set_defaults(command=_show)

    data = commands.add_parser("data", help="data sets: list, fetch, verify, where")
    actions = ("list", "fetch", "verify", "where")
    data.add_argument("action", choices=actions, metavar="|".join(actions))
    data.add_argument("names", nargs="*", default=[], metavar="NAME", help="data sets; none: all")
    data.set_defaults(command=_data)

    doctor = commands.add_parser("doctor", help="versions, devices, data roots: what works here and what does not")
    doctor.set_defaults(command=_doctor)
    for sub in commands.choices.values():
        sub.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: 1 or more")
    return int(text)


def _run(words: list[str]) -> int:
    if "--help" in words or "-h" in words:
        print(RUN_HELP, end="")
        return 0
    from landscape_cli.jobs import run_jobs

    return run_jobs(words)


def _submit(arguments: argparse.Namespace) -> int:
    from landscape_cli.provenance import remember_command
    from landscape_cli.submit import submit

    remember_command(["submit", *arguments.words])
    return submit(arguments.words)


def _status(arguments: argparse.Namespace) -> int:
    from landscape_cli.status import status

    return status(arguments.names)


def _work(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from landscape_cli.submit import work

    return work(Path(arguments.folder), arguments.number)


def _figures(arguments: argparse.Namespace) -> int:
    from landscape_cli.commands import figures

    return figures(arguments.names, arguments.chapter)


def _reproduce(arguments: argparse.Namespace) -> int:
    from landscape_cli.reproduce import reproduce

    return reproduce(arguments.words, arguments.jobs, arguments.beyond)


def _report(arguments: argparse.Namespace) -> int:
    from landscape_cli.provenance import remember_command
    from landscape_cli.report.write import report

    remember_command(["report", *arguments.words])
    return report(arguments.words)


def _list(arguments: argparse.Namespace) -> int:
    from landscape_cli.listing import list_experiments

    return list_experiments()


def _show(arguments: argparse.Namespace) -> int:
    from landscape_cli.commands import show

    return show(arguments.name, arguments.overrides)


def _data(arguments: argparse.Namespace) -> int:
    from landscape_cli.commands import data

    return data(arguments.action, arguments.names)


def _doctor(arguments: argparse.Namespace) -> int:
    from landscape_cli.commands import doctor

    return doctor()


if __name__ == "__main__":
    main()
