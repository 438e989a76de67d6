"""`python -m tests.golden`: write what this checkout gives on this machine into golden.json.

Entries of other machines are kept while they are of the same commit, and dropped otherwise.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.golden import cases


def main() -> None:
    """Write the file."""
    path = Path(__file__).with_name("golden.json")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    before = json.loads(path.read_text()) if path.exists() else {}
    portable, training = cases.compute(cases.PORTABLE), cases.compute(cases.TRAINING)
    machines = before.get("machines", {})
    if before and (before["portable"] != portable or machines.get(cases.machine(), training) != training):
        machines, before = {}, {}
    golden = {
        "commit": before.get("commit", head),
        "portable": portable,
        "machines": machines | {cases.machine(): training},
    }
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
