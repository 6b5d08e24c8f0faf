"""Look every package of `poetry.lock` up in the database of known vulnerabilities: `python scripts/audit.py`.

Asks the package index for advisories. Where none answers, it says so and ends with status 0: no answer is no
finding.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOUND = 1  # pip-audit's status, also for its own failures
UNREACHABLE = (
    "ConnectionError",
    "ServiceError",
    "Connection refused",
    "Max retries",
    "Failed to resolve",
    "404",
)


def main() -> None:
    packages = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))["package"]
    rounds: list[dict[str, str]] = []  # a package that is locked in two versions is looked up in two rounds
    for item in packages:
        place = next((listed for listed in rounds if item["name"] not in listed), None)
        if place is None:
            rounds.append(place := {})
        place[item["name"]] = item["version"]
    sys.exit(max(audit(listed) for listed in rounds))


def audit(packages: dict[str, str]) -> int:
    """Look packages up, print what pip-audit says, and return its status, 0 where no index answers."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        lines = [f"{name}=={version}\n" for name, version in packages.items()]
        listed.write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "-r", str(listed)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == FOUND and any(word in done.stderr for word in UNREACHABLE):
        print(f"no advisories could be fetched here; {len(packages)} packages were not checked")
        return 0
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    main()
