"""What faults cost: .deps/python/bin/python bench/reliability.py [ROUNDS]

Prints medians over ROUNDS (5) rounds, two workers on this machine, one thread each:
* from the command to the end of the first step, beside torchrun's (interleaved);
* from SIGKILL of a worker to the end of the first step after it, and the steps that had to be taken again;
* what a checkpoint costs training (stall) and how long it takes to write, asynchronously and not, for the network of
  `single` at full width.
Needs `cargo build --release --bins` and, for torchrun, a Python with PyTorch (setup/python.sh).
"""
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
CONFIG = """
[run]
device = "cpu"
[data]
train = "phantom/train.txt"
size = 64
workers = 1
[model]
width = {width}
[train]
max_steps = {steps}
[checkpoint]
every_steps = {every}
every_epochs = 0
keep_last = 2
[eval]
every_epochs = 0
"""


def lines(run, kind):
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    texts = path.read_text().splitlines()
    found = []
    for text in texts:
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            pass  # The last line may be half-written.
    return [line for line in found if line["kind"] == kind]


def start(folder, name, *settings, restarts=0):
    command = [RELEASE / "jcs-launch", "--nproc-per-node", "2", "--max-restarts", str(restarts), "small.toml", f"run.dir={name}"]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.Popen([*command, *settings], cwd=folder, env=environment, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def wait_for(condition, what):
    until = time.time() + 120
    while not (found := condition()):
        if time.time() > until:
            sys.exit(f"reliability.py: no {what} in two minutes")
        time.sleep(0.002)
    return found


def first_step(folder, i):
    began, run = time.time(), folder / f"first{i}"
    job = start(folder, run.name, "train.max_steps=1")
    wait_for(lambda: lines(run, "train"), "first step")
    took = time.time() - began
    job.wait()
    return took


def first_step_torchrun(folder, i):
    out, began = folder / f"torchrun{i}", time.time()
    torchrun = Path(sys.executable).parent / "torchrun"
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    subprocess.run([torchrun, "--nnodes", "1", "--nproc-per-node", "2", ROOT / "bench/torchrun_peer.py", out],
                   env=environment, capture_output=True)  # Now and then Gloo aborts at the end, after what is timed.
    return float(out.read_text()) - began


def workers(folder):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "exe").endswith("/jcs") and os.readlink(process / "cwd") == str(folder):
                found.append(int(process.name))
        except OSError:
            pass
    return sorted(found)


def kill_and_go_on(folder, i):
    run = folder / f"kill{i}"
    job = start(folder, run.name, "train.max_steps=100000", "checkpoint.every_steps=10", restarts=1)
    wait_for(lambda: len(lines(run, "train")) >= 25 + i, "step")
    killed = time.time()
    os.kill(workers(folder)[-1], signal.SIGKILL)
    done = len(lines(run, "train"))
    resume = wait_for(lambda: [e for e in lines(run, "event") if e["event"] == "resume"], "restart")[0]["step"]
    wait_for(lambda: lines(run, "train")[-1]["step"] > resume, "step after the restart")
    took = time.time() - killed
    job.send_signal(signal.SIGINT)
    job.wait()
    return took, done - resume


def stall(folder, i, asynchronous):
    run = folder / f"stall{i}{asynchronous}"
    job = start(folder, run.name, "train.max_steps=12", "model.width=1.0", "checkpoint.every_steps=4",
                f"checkpoint.async={asynchronous}")
    job.wait()
    found = lines(run, "checkpoint")[:2]
    steps = statistics.median(line["step_seconds"] for line in lines(run, "train"))
    return [line["stall_seconds"] for line in found], [line["seconds"] for line in found], found[0]["bytes"], steps


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        subprocess.run([RELEASE / "data-shards", "phantom", "phantom", "--patients", "6", "--size", "64", "--seed", "1"],
                       cwd=folder, check=True, capture_output=True)
        (folder / "small.toml").write_text(CONFIG.format(width=0.125, steps=8, every=0))
        ours, theirs = [], []
        for i in range(rounds):
            ours.append(first_step(folder, i))
            theirs.append(first_step_torchrun(folder, i))
        a, b = statistics.median(ours), statistics.median(theirs)
        print(f"from the command to the first step: {a:.2f} s, torchrun {b:.2f} s (ratio {a / b:.2f})")
        kills = [kill_and_go_on(folder, i) for i in range(rounds)]
        took, lost = (statistics.median(column) for column in zip(*kills))
        print(f"from SIGKILL of a worker to the first step after it: {took:.2f} s (1 s of it the wait before a restart); steps "
              f"taken again: {lost} (a checkpoint every 10 steps)")
        found = {"true": [], "false": []}
        for i in range(min(rounds, 3)):
            for mode, runs in found.items():
                runs.append(stall(folder, i, mode))
        for mode, name in (("true", "asynchronous"), ("false", "synchronous")):
            stalls = statistics.median(s for run in found[mode] for s in run[0])
            writes = statistics.median(s for run in found[mode] for s in run[1])
            size, steps = found[mode][0][2] / 1e6, statistics.median(run[3] for run in found[mode])
            print(f"checkpoint of {size:.0f} MB, {name}: training stalls for {stalls:.3f} s (a step takes {steps:.3f} s), "
                  f"written in {writes:.3f} s")


main()
