"""Where ``conf/`` is; apart from the rest so that listing and completion import no Hydra."""

from pathlib import Path


def config_folder() -> Path:
    """Absolute path of ``conf/``: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    beside = package.parent / "conf"
    return beside if (beside / "config.yaml").is_file() else package / "conf"
