"""Check the packages of `poetry.lock` for known bad releases and vulnerabilities: `python scripts/audit.py`.

1. Compare with `KNOWN_BAD`, which needs no network.
2. Look every package up in the database of known vulnerabilities, through pip-audit.

Exits with status 1 when a package is bad or vulnerable, and with 2 when the database cannot be reached: nothing
was looked up then, which must not read as "nothing found". `--offline` runs the first check alone.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KNOWN_BAD = {  # package: {version: reason}
    "pytorch-lightning": dict.fromkeys(("2.6.2", "2.6.3"), "malicious upload, GHSA-w37p-236h-pfx3"),
    "lightning": dict.fromkeys(("2.6.2", "2.6.3"), "malicious upload, GHSA-w37p-236h-pfx3"),
}
NOT_REACHED = ("ConnectionError", "ServiceError", "Connection refused", "Max retries", "Failed to resolve")
NOT_AUDITED = "could not be audited"  # what pip-audit prints of a package that its index does not describe


def main() -> None:
    packages = read_lock(ROOT / "poetry.lock")
    bad = find_known_bad(packages)
    for line in bad:
        print(line, file=sys.stderr)
    if bad:
        sys.exit(1)
    print(f"{len(packages)} locked packages, none among the known bad releases")
    if "--offline" not in sys.argv[1:]:
        sys.exit(audit(packages))


def read_lock(path: Path) -> list[tuple[str, str]]:
    """Return (name, version) of every locked package; a package may be locked in two versions."""
    return [(item["name"], item["version"]) for item in tomllib.loads(path.read_text(encoding="utf-8"))["package"]]


def find_known_bad(packages: list[tuple[str, str]]) -> list[str]:
    """Return one line for each locked release that is listed in `KNOWN_BAD`."""
    return [
        f"{name} {version}: {KNOWN_BAD[name][version]}; lock another version"
        for name, version in packages
        if version in KNOWN_BAD.get(name, {})
    ]


def audit(packages: list[tuple[str, str]]) -> int:
    """Look packages up with pip-audit and print what it reports; return its status, 2 if no database answers."""
    rounds: list[dict[str, str]] = []  # pip-audit takes one version of a package at a time
    for name, version in packages:
        target = next((listed for listed in rounds if name not in listed), None)
        if target is None:
            rounds.append(target := {})
        target[name] = version
    status = 0
    for listed in rounds:
        with tempfile.TemporaryDirectory() as folder:
            requirements = Path(folder) / "requirements.txt"
            requirements.write_text("".join(f"{n}=={v}\n" for n, v in listed.items()), encoding="utf-8")
            command = [
                sys.executable,
                "-m",
                "pip_audit",
                "--disable-pip",
                "--no-deps",
                "-r",
                str(requirements),
            ]
            result = subprocess.run(command, capture_output=True, text=True)
        unreached = result.returncode and any(word in result.stderr for word in NOT_REACHED)
        if unreached or result.stdout.count(NOT_AUDITED) > len(listed) // 2:
            print(
                f"NOT CHECKED: the advisory database does not answer for {len(packages)} packages",
                file=sys.stderr,
            )
            return 2
        print(result.stdout, end="")
        print(result.stderr, end="", file=sys.stderr)
        status = max(status, result.returncode)
    return status


if __name__ == "__main__":
    main()
