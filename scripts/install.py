"""Install the project into `.venv` from its lock, on a machine that has only Python and pip.

Poetry goes into a virtual environment of its own, `.poetry`. It is pointed at the package index that pip is
configured for, through a plugin, since some mirrors serve only what pip asks for. Arguments go to
`poetry install`; none installs what a run needs, `--all-extras --all-groups` what the tests need as well.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".poetry"
BIN = TOOLS / ("Scripts" if os.name == "nt" else "bin")
WANTED = ["poetry>=2.2,<3", "poetry-plugin-pypi-mirror"]
ENDING = ".exe" if os.name == "nt" else ""
PYTHON, POETRY = BIN / f"python{ENDING}", BIN / f"poetry{ENDING}"


def main() -> None:
    found = sys.version.split()[0]
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(f"Python {found} does not fit; expected 3.11 to 3.13; run: make PYTHON=python3.12 ...")
    if not POETRY.exists():
        print("installing Poetry into .poetry ...", flush=True)
        install_poetry()
    # Poetry would install into an environment that is active, or into this one
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment.setdefault("POETRY_PYPI_MIRROR_URL", package_index())
    environment["POETRY_VIRTUALENVS_IN_PROJECT"] = "true"
    environment["POETRY_VIRTUALENVS_USE_POETRY_PYTHON"] = "true"
    print("installing the locked packages into .venv; the first time this takes minutes ...", flush=True)
    words = sys.argv[1:] or ["--only", "main"]
    run([POETRY, "install", "--no-interaction", "--quiet", *words], environment)


def install_poetry() -> None:
    """Make `.poetry`, also where Python came without ensurepip, as some distributions ship it."""
    try:
        venv.create(TOOLS, with_pip=True, clear=True)
        pip: list[str | Path] = [PYTHON, "-m", "pip"]
    except subprocess.CalledProcessError:
        venv.create(TOOLS, with_pip=False, clear=True)
        pip = [sys.executable, "-m", "pip", "--python", PYTHON]
    run([*pip, "install", "-qq", *WANTED])  # errors alone, not the index's warnings


def package_index() -> str:
    """The index that pip uses here: as configured, else pip's own default."""
    if os.environ.get("PIP_INDEX_URL"):
        return os.environ["PIP_INDEX_URL"]
    for key in ("install.index-url", "global.index-url"):
        asked = ask("-m", "pip", "config", "get", key)
        if asked:
            return asked
    return ask("-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)")


def ask(*words: str) -> str:
    """What the Python that runs this prints, nothing where it fails."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True).stdout.strip()


def run(command: list[str | Path], environment: dict[str, str] | None = None) -> None:
    """Run a command in the project's folder, or end with its status."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, env=environment)
    if done.returncode:
        sys.exit(f"{Path(command[0]).name} ended with status {done.returncode}; its message stands above")


if __name__ == "__main__":
    main()
