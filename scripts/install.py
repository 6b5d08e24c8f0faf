"""Install the project into `.venv` from its lock, on a machine that has only Python and pip.

Poetry is put into a virtual environment of its own, `.poetry`. It is pointed at the package index that pip is
configured for, through a plugin, since some mirrors serve only what pip asks for. Arguments go to
`poetry install`.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".poetry"
BIN = TOOLS / ("Scripts" if os.name == "nt" else "bin")


def main() -> None:
    if sys.version_info < (3, 11):
        sys.exit(
            f"Python {sys.version.split()[0]} is too old; expected 3.11 to 3.13; run: make PYTHON=python3.12 ..."
        )
    if not (BIN / "poetry").exists() and not (BIN / "poetry.exe").exists():
        print("installing Poetry into .poetry ...", flush=True)
        venv.create(TOOLS, with_pip=True, clear=True)
        run([BIN / "python", "-m", "pip", "install", "--quiet", "poetry>=2.1", "poetry-plugin-pypi-mirror"])
    environment = {
        name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")
    }
    environment.setdefault("POETRY_PYPI_MIRROR_URL", package_index())
    environment["POETRY_VIRTUALENVS_IN_PROJECT"] = "true"
    environment["POETRY_VIRTUALENVS_USE_POETRY_PYTHON"] = "true"
    print("installing the locked packages into .venv; the first time this takes minutes ...", flush=True)
    run(
        [BIN / "poetry", "install", "--no-interaction", "--quiet", *(sys.argv[1:] or ["--only", "main"])],
        environment,
    )


def package_index() -> str:
    """The index that pip uses here: as configured, else pip's own default."""
    asked = subprocess.run(
        [BIN / "python", "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    )
    if os.environ.get("PIP_INDEX_URL") or asked.stdout.strip():
        return os.environ.get("PIP_INDEX_URL") or asked.stdout.strip()
    code = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    return subprocess.run(
        [BIN / "python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def run(command: list[str | Path], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run([str(word) for word in command], cwd=ROOT, env=environment)
    if done.returncode:
        sys.exit(f"{Path(command[0]).name} ended with status {done.returncode}; its message stands above")


if __name__ == "__main__":
    main()
