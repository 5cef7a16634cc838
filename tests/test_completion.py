"""Shell completion, as the hook that ``landscape -sc install=bash`` prints asks for it."""

import os
import shutil
import subprocess
import sys

import pytest

from landscape_cli.listing import shipped

LAUNCH = """
import sys
from landscape_cli.cli import dispatch
sys.argv = ["landscape", "-sc", "query=bash"]
dispatch(sys.argv[1:])
print(*sorted({"torch", "pandas", "matplotlib", "scipy"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def complete(landscape, monkeypatch):
    """The words offered for a line, the cursor at its end."""

    def run(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        finished = landscape("-sc", "query=bash")
        assert finished.code in (0, None)
        assert finished.err == ""
        return finished.out.split()

    return run


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("landscape ", ["run", "figures", "list", "show", "data", "doctor"]),
        ("landscape d", ["data", "doctor"]),
        ("landscape ru", ["run"]),
        ("landscape data ", ["list", "fetch", "verify", "where"]),
        ("landscape data ver", ["verify"]),
        ("landscape show sch", ["schematic_distillation", "schematic_loss_change", "schematic_posterior_shift"]),
        ("landscape figures quick", ["quickstart"]),
        ("landscape list ", []),
        ("landscape run experi", ["experiment="]),
        ("landscape run profile=", ["profile=embedded", "profile=paper", "profile=quick", "profile=smoke"]),
        ("landscape run experiment=quickstart profile=q", ["profile=quick"]),
        ("landscape run model.hid", ["model.hidden_size="]),
        ("landscape run see", ["seed=", "seeds="]),
        ("landscape run dataset=m", ["dataset=mnist", "dataset=multi30k"]),
        ("landscape run output_dir=folder/run/x experi", ["experiment="]),
        ("landscape run -m experi", ["experiment="]),
    ],
)
def test_offers(complete, line, offered):
    assert complete(line) == offered


def test_offers_every_experiment(complete):
    assert complete("landscape run experiment=") == [f"experiment={name}" for name in shipped()]
    assert complete("landscape run experiment=fc_c") == ["experiment=fc_cifar10", "experiment=fc_cifar100"]
    assert complete("landscape show ") == list(shipped())


def test_offers_keys_after_a_finished_word(complete):
    offered = complete("landscape run experiment=fc_mnist ")
    assert {"seeds=", "device=", "training."} <= set(offered)
    assert "grid." in offered


@pytest.mark.parametrize("line", ["landscape data fetch ", "landscape data verify m"])
def test_offers_data_sets(complete, line):
    offered = complete(line)
    assert "mnist" in offered
    assert "list" not in offered


@pytest.mark.parametrize("line", ["landscape run experi", "landscape run experiment=fc_", "landscape show fc_"])
def test_imports_nothing_heavy(line):
    environment = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = subprocess.run([sys.executable, "-c", LAUNCH], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr.split() == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_installed_hook_completes(landscape, tmp_path):
    """In bash itself: install the hook, press Tab, read COMPREPLY."""
    hook = landscape("-sc", "install=bash").out
    assert "complete " in hook
    program = tmp_path / "landscape"
    program.write_text(f"#!{sys.executable}\nfrom landscape_cli.cli import main\nmain()\n")
    program.chmod(0o755)
    script = f"""
    export PATH={tmp_path}:$PATH
    {hook}
    COMP_LINE="landscape run experiment=qui" COMP_POINT=28 COMP_WORDS=(landscape run experiment = qui) COMP_CWORD=4
    function=$(complete -p landscape | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
    $function
    echo "reply: ${{COMPREPLY[*]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert "quickstart" in done.stdout.partition("reply:")[2], done.stdout + done.stderr


@pytest.mark.parametrize("words", [["-sc"], ["-sc", "foo"], ["-sc", "install=nosuch"]], ids=" ".join)
def test_wrong_use_is_one_line(landscape, words):
    finished = landscape(*words)
    assert finished.code == 2
    assert len(finished.lines) == 1
    assert "install=bash" in finished.err
