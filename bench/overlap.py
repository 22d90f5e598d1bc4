"""Does the all-reduce hide behind the backward pass? python3 bench/overlap.py [STEPS] [KEY=VALUE ...]

Trains configs/ct100.toml on two workers with and without comm.overlap, interleaved, three rounds of
STEPS steps each, and prints medians over all steps but the first of each round.
"""
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
KEYS = ["step_seconds", "backward_seconds", "comm_seconds", "comm_exposed_seconds", "comm_first_start"]


def binary():
    for profile in ("release", "debug"):
        path = ROOT / "target" / profile / "jcs-launch"
        if path.exists():
            return path
    sys.exit("overlap.py: no jcs-launch; run `cargo build --release --bins`")


def train(steps, overlap, settings):
    with tempfile.TemporaryDirectory() as run:
        command = [binary(), "--nproc-per-node", "2", "--max-restarts", "0", "configs/ct100.toml", f"run.dir={run}/run",
                   f"train.max_steps={steps}", "data.eval=", "checkpoint.every_epochs=0", f"comm.overlap={overlap}", *settings]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        lines = [json.loads(line) for line in open(f"{run}/run/metrics.jsonl")]
    return [d for d in lines if d["kind"] == "train"][1:]


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    found = {"true": [], "false": []}
    for _ in range(ROUNDS):
        for overlap in found:
            found[overlap] += train(steps, overlap, sys.argv[2:])
    print("overlap  " + "  ".join(f"{k:>20}" for k in KEYS) + "   exposed/comm")
    for overlap, lines in found.items():
        m = {k: statistics.median(d[k] for d in lines) for k in KEYS}
        share = statistics.median(d["comm_exposed_seconds"] / d["comm_seconds"] for d in lines)
        print(f"{overlap:<7}  " + "  ".join(f"{m[k]:20.4f}" for k in KEYS) + f"   {share:.3f}")


main()
