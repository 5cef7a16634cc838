"""Commands that start at once: a process that has imported everything forks a child for each.

The tests talk to it by lines of JSON. It tells the phase that a child was in when it died, and can let a shell command
happen at the moment when a child enters a phase.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fault_toys import REAL

STARTING = "starting"


@dataclass(frozen=True)
class Child:
    """A command that was started."""

    forks: "Forks"
    pid: int
    folder: Path  # of its stdout, stderr and phases

    @property
    def out(self):
        return (self.folder / "out").read_text()

    @property
    def err(self):
        return (self.folder / "err").read_text()

    @property
    def lines(self):
        return self.err.splitlines()

    @property
    def phase(self):
        """The innermost phase that was entered and not left."""
        inside = []
        for line in (self.folder / "phases").read_text().splitlines():
            if line[0] == "+":
                inside.append(line[1:])
            elif inside:
                inside.pop()
        return inside[-1] if inside else STARTING

    def poll(self):
        """Exit code, negative after a signal; None while it runs."""
        return self.forks.ask(do="poll", pid=self.pid)

    def wait(self, seconds=60.0):
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            assert time.monotonic() < end, f"still runs after {seconds} s, {self.phase}: {self.out}{self.err}"
            time.sleep(0.01)
        return code

    def send(self, number):
        self.forks.ask(do="signal", pid=self.pid, number=int(number))

    def kill(self):
        """Kill it with signal 9; return the phase it was in, or None if it had ended by itself."""
        self.send(signal.SIGKILL)
        return self.phase if self.wait() == -signal.SIGKILL else None


class Forks:
    """The tests' side."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        here = Path(__file__)
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(here.parent)]))
        self.process = subprocess.Popen(
            [sys.executable, str(here)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C of the tests ends it by the end of its input
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *words, at=None, uid=None, then=()):
        """Start ``landscape WORDS``.

        Parameters
        ----------
        at
            Phase, how many times it has to be entered, and the shell command to run then.
        uid
            User to become.
        then
            The words of commands to run after it in the same process; the exit code is the first that is not 0.
        """
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        for name in ("out", "err", "phases"):  # it may be looked at, or killed, before the child has opened them
            (folder / name).touch()
        commands = [[*words], *map(list, then)]
        about = {"cwd": os.getcwd(), "environment": dict(os.environ), "folder": str(folder)}
        return Child(self, self.ask(do="start", commands=commands, at=at, uid=uid, **about), folder)

    def run(self, *words, seconds=60.0, **options):
        """Start a command and wait for its end: exit code and child."""
        child = self.start(*words, **options)
        return child.wait(seconds), child

    def kill_all(self):
        self.ask(do="kill all")


def serve():
    """The server's side: one request a line, one answer a line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_everything()
    children, ended = set(), {}

    def poll(pid):
        if pid in children:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                children.discard(pid)
                ended[pid] = os.waitstatus_to_exitcode(status)
        return ended.get(pid)

    def kill_all():
        for pid in list(children):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        children.clear()

    for line in sys.stdin:
        request, answer = json.loads(line), None
        if request["do"] == "start":
            answer = os.fork()
            if not answer:
                os._exit(_child(request))
            children.add(answer)
            ended.pop(answer, None)  # numbers are used again
        elif request["do"] == "poll":
            answer = poll(request["pid"])
        elif request["do"] == "signal" and poll(request["pid"]) is None:
            os.kill(request["pid"], request["number"])  # not waited for: the number is still the child's
        elif request["do"] == "kill all":
            kill_all()
        print(json.dumps(answer), file=answers, flush=True)
    kill_all()


def _import_everything():
    import pyarrow.parquet  # noqa: F401
    import torch.func
    from sklearn.datasets import load_digits  # noqa: F401

    import experiments.chapter1.fully_connected  # noqa: F401
    import landscape_cli.checkpointing
    import landscape_cli.jobs
    import landscape_cli.plotting.output
    import landscape_cli.plotting.style
    import landscape_cli.training  # noqa: F401
    from landscape_cli import provenance

    torch.set_num_threads(1)
    provenance.commit()  # asks git once for all children
    # What is imported late is imported by the first run: this one, and not by every child.
    with tempfile.TemporaryDirectory() as scratch:
        from landscape_cli.cli import dispatch

        dispatch(["run", *REAL, f"output_dir={scratch}"])


def _child(request):
    import threading

    import tqdm

    # Its own lock is the server's and so that of all children: one that is killed with it would stop the others.
    tqdm.tqdm.set_lock(threading.RLock())
    folder = Path(request["folder"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    phases = os.open(folder / "phases", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    code = 70
    try:
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        if request["uid"] is not None:
            os.setgroups([])
            os.setgid(request["uid"])
            os.setuid(request["uid"])
        _tell_phases(phases, request["at"])
        from landscape_cli.cli import dispatch

        codes = [dispatch(words) for words in request["commands"]]
        code = next(filter(None, codes), 0)
    except BaseException as error:
        import traceback

        code = error.code if isinstance(error, SystemExit) else 70
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
    return code


def _tell_phases(handle, at):
    from functools import partial

    from landscape_cli import checkpointing, claims, measuring, runner, store
    from landscape_cli import draw as drawing
    from landscape_cli.plotting import output

    entered = Counter()

    def within(owner, name, phase):
        plain = getattr(owner, name)

        def told(*given, **named):
            os.write(handle, f"+{phase}\n".encode())
            entered[phase] += 1
            if at and (phase, entered[phase]) == (at[0], at[1]):
                subprocess.run(at[2], shell=True, check=False, capture_output=True)
            try:
                return plain(*given, **named)
            finally:
                os.write(handle, f"-{phase}\n".encode())

        setattr(owner, name, told)

    within(runner, "_check_writable", "opening the store")
    within(runner, "write_grid", "writing the list of points")
    within(runner, "measure_all", "measuring")
    within(drawing, "draw", "drawing")
    within(measuring, "_run_folder", "making the run folder")
    within(measuring, "_failed", "writing a failure")
    within(claims.Claims, "take", "claiming")
    within(claims.Claims, "release", "releasing")
    within(store.Store, "write", "storing")
    within(store.os, "fsync", "syncing")
    within(store.Store, "forget", "forgetting")
    within(checkpointing.Loop, "_write", "writing a checkpoint")
    within(measuring.time, "sleep", "waiting")
    within(output, "save_figure", "writing a figure")
    within(output, "save_table", "writing a table")
    _tell_replacements(within)
    # The trainings of these tests take milliseconds: with the usual pause none of them would write a checkpoint.
    checkpointing.checkpoints_in = partial(checkpointing.checkpoints_in, pause=0.0)


def _tell_replacements(within):
    """Phases in which a draft is there that is to replace a file as a whole."""
    plain = Path.replace
    places = {"format.json": "the format", "grids": "the list", "figures": "in figures", "tables": "in tables"}

    class Moment:
        pass

    for name in places.values():
        setattr(Moment, name, staticmethod(plain))
        within(Moment, name, f"replacing {name}")

    def replace(draft, target):
        name = next((name for part, name in places.items() if part in Path(target).parts), None)
        return getattr(Moment, name)(draft, target) if name else plain(draft, target)

    Path.replace = replace


if __name__ == "__main__":
    serve()
