"""Run the benchmarks and write docs/benchmarks.md: ``make bench``.

Each benchmark prints one table; what stands on the page between two markers is what it printed last.

    python tests/bench/report.py                       all of them (hours: the usual recipe is slow)
    python tests/bench/report.py scoring memory        some of them
    python tests/bench/report.py training -- --rows 960
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from datetime import date
from importlib import metadata
from pathlib import Path

from dlpipe.machine import count_allowed_cores, read_cpu_features, read_cpu_name

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
PACKAGES = ("torch", "transformers", "lightning-flash", "ray", "shap", "onnxruntime", "mlflow", "metaflow", "peft")


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    names = re.findall(r"<!-- bench (\w+) -->", page)
    options, extra = parse(names)
    for name in options.names or names:
        page = put(page, name, measured(name, extra))
        PAGE.write_text(page, encoding="utf-8")  # each result as it comes: the next one may take an hour


def parse(names: list[str]) -> tuple[argparse.Namespace, list[str]]:
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names)}; by default all")
    options = parser.parse_args(arguments[:cut])
    if unknown := set(options.names) - set(names):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(names)}")
    return options, arguments[cut + 1 :]


def measured(name: str, extra: list[str]) -> str:
    """Return the table of one benchmark, with the command, the day and the machine under it."""
    command = [f"tests/bench/{name}.py", *extra]
    print(f"python {' '.join(command)}", file=sys.stderr)
    made = subprocess.run(
        [sys.executable, *command], cwd=HERE.parents[1], stdout=subprocess.PIPE, text=True, check=False
    )
    if made.returncode:
        sys.exit(f"{name} failed with exit code {made.returncode}")
    print(made.stdout)
    return f"{made.stdout.strip()}\n\n`python {' '.join(command)}`, {date.today()}, {machine()}."


def machine() -> str:
    """Return the processor, its cores and instructions that matter, and the packages."""
    flags = [flag for flag in ("avx512_vnni", "avx512_bf16", "amx_bf16") if flag in read_cpu_features()]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    instructions = ", ".join(flags) or "no special instructions"
    return f"{read_cpu_name()} ({instructions}), {count_allowed_cores()} cores; {versions}"


def put(page: str, name: str, table: str) -> str:
    """Return ``page`` with ``table`` between the markers of ``name``."""
    pattern = rf"(<!-- bench {name} -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda match: f"{match[1]}\n{table}\n\n{match[2]}", page, flags=re.DOTALL)


if __name__ == "__main__":
    main()
