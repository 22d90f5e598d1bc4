#!/usr/bin/env python3
"""Does a test see it when the code is wrong?

mutants.py [FOLDER...]    all of FOLDERS below without arguments; SAMPLE=N changes a folder (8), evenly spread over all possible ones

cargo-mutants changes one function at a time: another return value, another operator. First the tests of its crate run, and those that
do not see it are followed by the end-to-end tests of what the folder is for. All of it is done with the last commit, in a clone of its
own (target/mutants/tree, with its own build), so that nothing here is touched. A change that makes the tests run for too long is
counted as seen: a job that hangs is noticed. The report, target/mutants/report.md, has the share that was seen, by folder, and
every change that was not.
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
TREE = OUT / "tree"
SAMPLE = int(os.environ.get("SAMPLE", "8"))

# Folder or file, and the end-to-end tests that would notice (a filter of nextest).
FOLDERS = {
    "trainer/src/ddp/": "binary(equality) | binary(nccl)",
    "trainer/src/checkpoint/": "binary(checkpoints) | binary(faults) | binary(uploads)",
    "trainer/src/optim/": "binary(equality)",
    "trainer/src/metrics/": "binary(results) | binary(classifier)",
    "data-shards/src/order.rs": "binary(equality)",
    "data-shards/src/shard/blocks.rs": "binary(shards)",
    "data-shards/src/partition.rs": "binary(equality)",
    "launcher/src/plan.rs": "binary(hosts)",
    "launcher/src/attempt.rs": "binary(faults) | binary(hangs)",
    "launcher/src/cause.rs": "binary(faults) | binary(hosts)",
    "launcher/src/restart.rs": "binary(faults) | binary(hosts)",
    "launcher/src/pulse.rs": "binary(hangs)",
    "launcher/src/roster.rs": "binary(hosts)",
}


def clone():
    """The last commit, with what git ignores and the tests need."""
    OUT.mkdir(parents=True, exist_ok=True)
    if TREE.exists():
        subprocess.run(["git", "fetch", "--quiet", ROOT, "HEAD"], cwd=TREE, check=True)
        subprocess.run(["git", "reset", "--quiet", "--hard", "FETCH_HEAD"], cwd=TREE, check=True)
    else:
        subprocess.run(["git", "clone", "--quiet", ROOT, TREE], check=True)
    for name, target in {TREE / ".deps": ROOT / ".deps", OUT / "shared": ROOT.parent / "shared"}.items():
        if target.exists() and not name.exists():
            name.symlink_to(target)


def mutants(*arguments, **options):
    # A build of its own, and no failures for what cannot run here.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "CARGO_TARGET_DIR")}
    return subprocess.run(["cargo", "mutants", *arguments], cwd=TREE, env=environment, stdin=subprocess.DEVNULL, **options)


def possible(folder):
    pattern = folder + "**/*.rs" if folder.endswith("/") else folder
    listed = mutants("--list", "--json", "-f", pattern, check=True, capture_output=True, text=True).stdout
    # A field left to its default: cargo-mutants does not choose those by name.
    return sorted(mutant["name"] for mutant in json.loads(listed) if mutant["genre"] != "StructField")


def sample(names):
    return names if len(names) <= SAMPLE else [names[i * len(names) // SAMPLE] for i in range(SAMPLE)]


def outcomes(names, place, arguments):
    """How the tests took each change of `names`: caught, missed, timeout or unviable (it does not compile)."""
    found = {}
    if names:
        shutil.rmtree(OUT / place, ignore_errors=True)
        (OUT / place).mkdir()
        files = [argument for file in sorted({name.split(":")[0] for name in names}) for argument in ("-f", file)]
        chosen = "|".join(f"^{re.escape(name)}$" for name in names)
        run = mutants("--in-place", "--no-shuffle", "--test-tool", "nextest", "--output", OUT / place, *files, "--re", chosen, *arguments)
        # 2 and 3 are survivors and time-outs; 1 and 4 are mistakes in the command or the tree.
        if run.returncode not in (0, 2, 3):
            sys.exit(f"mutants: cargo-mutants ended with {run.returncode}; its logs are in {OUT / place}")
        for outcome in ("caught", "missed", "timeout", "unviable"):
            lines = (OUT / place / f"mutants.out/{outcome}.txt").read_text().splitlines()
            found |= {name: outcome for name in lines}
    if missing := set(names) - set(found):
        sys.exit(f"mutants: cargo-mutants did not try {sorted(missing)}")
    return found


def report(rows, survivors):
    lines = ["| folder | possible | tried | too long | seen by the crate's tests | end to end, too |", "| --- | --- | --- | --- | --- | --- |"]
    total = [sum(row[i] for row in rows.values()) for i in range(5)]
    for folder, (all_, tried, late, by_crate, seen) in [*((f"`{f}`", row) for f, row in rows.items()), ("all", total)]:
        share = [f"{n} ({n / tried:.0%})" if tried else "-" for n in (by_crate, seen)]
        lines.append(f"| {folder} | {all_} | {tried} | {late} | {share[0]} | {share[1]} |")
    (OUT / "report.md").write_text("\n".join(lines + ["", "Not seen:", "", *(f"* {name}" for name in survivors)]) + "\n")


def main():
    for argument in sys.argv[1:]:
        if argument not in FOLDERS:
            sys.exit(f"mutants: {argument} is none of {', '.join(FOLDERS)}")
    folders = [folder for folder in FOLDERS if not sys.argv[1:] or folder in sys.argv[1:]]
    clone()
    all_ = {folder: possible(folder) for folder in folders}
    if nothing := [folder for folder, names in all_.items() if not names]:
        sys.exit(f"mutants: nothing to change in {', '.join(nothing)}: moved?")
    tried = {folder: sample(names) for folder, names in all_.items()}
    first = {}
    for crate in sorted({folder.split("/")[0] for folder in folders}):
        names = [name for folder in folders if folder.startswith(crate + "/") for name in tried[folder]]
        first |= outcomes(names, crate, ["--", "--profile", "mutants"])
    rows, survivors = {}, []
    for folder in folders:
        viable = [name for name in tried[folder] if first[name] != "unviable"]
        missed = [name for name in viable if first[name] == "missed"]
        # Unchanged first: tests that fail in any case see nothing. The programs are built by the first test that needs them, and that
        # takes its time.
        arguments = ["--timeout", "900", "--test-package", "end-to-end", "--", "--profile", "mutants", "-E", FOLDERS[folder]]
        then = outcomes(missed, folder.strip("/").replace("/", "-"), arguments)
        still = [name for name in missed if then[name] == "missed"]
        late = sum(outcome == "timeout" for outcome in [*(first[name] for name in viable), *then.values()])
        rows[folder] = (len(all_[folder]), len(viable), late, len(viable) - len(missed), len(viable) - len(still))
        survivors += still
        report(rows, survivors)
    print((OUT / "report.md").read_text())


if __name__ == "__main__":
    main()
