"""One output folder with a few cheap experiments of every kind, drawn under the smoke profile."""

import os
from pathlib import Path

import pytest

NAMES = ("schematic_loss_change", "vit_architectures", "belsley_illustration", "fc_mnist", "theorems")


@pytest.fixture(scope="session")
def drawn_once(tmp_path_factory, small) -> Path:
    """Not to be written to."""
    from landscape_cli.composing import load
    from landscape_cli.runner import run

    output = tmp_path_factory.mktemp("drawn")
    for name in NAMES:
        overrides = [f"experiment={name}", *small[:2], f"output_dir={output}", "plot.formats=[pdf,png]", "plot.dpi=60"]
        assert run(load(overrides), overrides) == 0
    return output


@pytest.fixture
def drawn(drawn_once, tmp_path, monkeypatch) -> Path:
    """A copy of :func:`drawn_once`, which is this test's output folder."""
    import shutil

    output = Path(shutil.copytree(drawn_once, tmp_path / "outputs", dirs_exist_ok=True))
    assert os.environ["LANDSCAPE_OUTPUTS"] == str(output)
    return output
