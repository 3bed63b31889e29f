"""The request log under kills: each request that was answered is in its Delta table exactly once.

.venv/bin/python tests/chaos/serving.py --rounds 200 --seed 0
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

KILLS = Path(__file__).resolve().parents[1] / "serving_kills.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dlpipe-chaos-") as folder:
        options = ["--rounds", str(given.rounds), "--seed", str(given.seed), "--folder", folder]
        sys.exit(subprocess.run([sys.executable, str(KILLS), *options], check=False).returncode)


if __name__ == "__main__":
    main()
