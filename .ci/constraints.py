"""Write constraints.txt: one resolution for each supported Python, merged with markers.

    python .ci/constraints.py python3.10 python3.11 python3.12 python3.13

Each interpreter needs a recent pip. Nothing is installed: pip resolves with --dry-run. The extra `export` is
resolved without what torch brings along for a GPU, so that the file suits CPU and CUDA builds alike; `gpu` is
pinned by hand below because its packages exist for Linux with CUDA only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Exact versions the workbench is tested with. Made by `make constraints`; do not edit by hand.
"""
# Resolved by hand: these need an index or a platform of their own.
PINNED = {
    "torch": "2.13.0",
    "tensorrt": "11.4.0.106",
    "pycuda": "2026.1",
    "tensorrt-rtx": "1.7.1.116",
}
BESIDE = ("onnx", "onnxruntime", "scikit-learn", "transformers")


def resolve(python: str) -> tuple[tuple[int, int], dict[str, str]]:
    """The minor version of an interpreter and the versions pip would install for it."""
    code = "import sys; print(*sys.version_info[:2])"
    major, minor = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*pip, "--report", str(report), f"{ROOT}[test,lab]", *BESIDE], check=True)
        installed = json.loads(report.read_text())["install"]
    found = {
        re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"] for item in installed
    }
    found.pop("workbench")
    return (int(major), int(minor)), found


def merge(resolved: dict[tuple[int, int], dict[str, str]]) -> list[str]:
    """One line for each package and run of Python versions that share its version."""
    pythons = sorted(resolved)
    lines = []
    for name in sorted({name for found in resolved.values() for name in found} - set(PINNED)):
        runs: list[tuple[str, list[tuple[int, int]]]] = []
        for python in pythons:
            version = resolved[python].get(name)
            if version is None:
                continue
            if runs and runs[-1][0] == version:
                runs[-1][1].append(python)
            else:
                runs.append((version, [python]))
        for index, (version, members) in enumerate(runs):
            marks = []
            if len(runs) > 1:
                if index > 0:
                    marks.append("python_version >= '{}.{}'".format(*members[0]))
                if index < len(runs) - 1:
                    marks.append("python_version < '{}.{}'".format(*runs[index + 1][1][0]))
            lines.append(f"{name}=={version}" + (f" ; {' and '.join(marks)}" if marks else ""))
    lines += [f"{name}=={version}" for name, version in PINNED.items()]
    return sorted(lines)


def main() -> None:
    """Resolve with every interpreter named and write the file."""
    resolved = dict(resolve(python) for python in sys.argv[1:])
    if not resolved:
        raise SystemExit("Name the interpreters, for example: python .ci/constraints.py python3.10 python3.11")
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(merge(resolved)) + "\n")


if __name__ == "__main__":
    main()
