#!/usr/bin/env python3
"""Samples a second, decoded and augmented at 512 x 512: this loader, PyTorch's DataLoader with OpenCV, and webdataset.

One run measures all in turn, several rounds, and prints medians, ratios to the faster peer and peak memory. Every side
has 2 workers and delivers stacked batches of 8 (images and masks); the peers read the very same PNG files. See docs/loader.md.
"""
import argparse, json, math, os, pathlib, random, statistics, subprocess, sys, tarfile, threading, time

HERE = pathlib.Path(__file__).resolve().parent.parent
SIDE, BATCH, WARM_UP = 512, 8, 6
RECIPES = {
    "official": dict(crop=7 / 224, crop_probability=0.5, flip_vertical=0.5, flip_horizontal=0.0, brightness=0.0,
                     contrast=0.0, scale=0.0, rotation=0.0, noise=0.0),
    "full": dict(crop=7 / 224, crop_probability=0.5, flip_vertical=0.5, flip_horizontal=0.5, brightness=0.2, contrast=0.2,
                 scale=0.1, rotation=15.0, noise=0.05),
}
OURS = {"jcs float": "float", "jcs byte": "byte"}
PEERS = ["torch float", "torch byte", "webdataset float", "webdataset byte"]


# The peers' side: imported only in processes that measure them.

def peer(kind, recipe, shards, files, workers, samples):
    import cv2
    import numpy as np
    import torch
    import webdataset

    cv2.setNumThreads(0)
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    factor, shift = (1 / std)[:, None, None], (-mean / std)[:, None, None]
    byte = kind.endswith("byte")
    r = RECIPES[recipe]

    def rect(rng, height, width):
        if rng.random() >= r["crop_probability"]:
            return 0, 0, width, height
        left, top = int(rng.integers(0, int(r["crop"] * width) + 1)), int(rng.integers(0, int(r["crop"] * height) + 1))
        return left, top, width - 2 * left, height - 2 * top

    def shade(grey, rng):
        """Brightness and contrast of 8-bit pixels by a table, as a competent user of OpenCV has it: to 0..1 floats, or to bytes."""
        levels = np.arange(256, dtype=np.float32) / 255
        if r["brightness"] or r["contrast"]:
            b, c = 1 + r["brightness"] * rng.uniform(-1, 1), 1 + r["contrast"] * rng.uniform(-1, 1)
            middle = cv2.mean(grey)[0] / 255
            levels = np.clip(levels * np.float32(b * c) + np.float32(middle * b * (1 - c)), 0, 1)
        elif byte:
            return grey
        return cv2.LUT(grey, np.rint(levels * 255).astype(np.uint8) if byte else levels)

    def warp(image, part, rng):
        """Crop, scale, rotation, resize and flips at once, or crop and resize, and flips."""
        left, top, width, height = part
        down, across = rng.random() < r["flip_vertical"], rng.random() < r["flip_horizontal"]
        if not (r["scale"] or r["rotation"]):
            cut = [i[top:top + height, left:left + width] for i in image]
            if (height, width) != (SIDE, SIDE):
                cut = [cv2.resize(i, (SIDE, SIDE), interpolation=how)
                       for i, how in zip(cut, (cv2.INTER_LINEAR, cv2.INTER_NEAREST))]
            if down or across:
                cut = [cv2.flip(i, -1 if down and across else 0 if down else 1) for i in cut]
            return cut
        scale, angle = 1 + r["scale"] * rng.uniform(-1, 1), math.radians(r["rotation"] * rng.uniform(-1, 1))
        cos, sin = math.cos(angle), math.sin(angle)
        x, y = width / SIDE / scale * (-1 if across else 1), height / SIDE / scale * (-1 if down else 1)
        m = np.array([[x * cos, -y * sin, 0], [x * sin, y * cos, 0]])
        half = (SIDE - 1) / 2
        m[:, 2] = np.array([left + (width - 1) / 2, top + (height - 1) / 2]) - m[:, :2] @ [half, half]
        return [cv2.warpAffine(i, m, (SIDE, SIDE), flags=how | cv2.WARP_INVERSE_MAP)
                for i, how in zip(image, (cv2.INTER_LINEAR, cv2.INTER_NEAREST))]

    def noisy(image, rng):
        if not r["noise"]:
            return image
        grain = rng.standard_normal(image.shape, dtype=np.float32)
        grain *= np.float32(r["noise"] * rng.random() * (255 if byte else 1))
        if byte:
            # Rounds and clamps.
            return cv2.add(image, grain, dtype=cv2.CV_8U)
        grain += image
        return np.clip(grain, 0, 1, out=grain)

    def sample(grey, mask, rng):
        """Grey stays in one channel until the end here, too; float32, channels x height x width."""
        image, mask = warp((shade(grey, rng), mask), rect(rng, *grey.shape), rng)
        image = noisy(image, rng)
        mask = (mask == 255).view(np.uint8)
        if byte:
            return torch.from_numpy(np.ascontiguousarray(image[None])), torch.from_numpy(mask)
        out = np.empty((3, SIDE, SIDE), np.float32)
        np.multiply(image[None], factor, out=out)
        out += shift
        return torch.from_numpy(out), torch.from_numpy(mask)

    class Files(torch.utils.data.Dataset):
        def __init__(self):
            self.keys = sorted(p.name[:-9] for p in pathlib.Path(files).glob("*.mask.png"))

        def __len__(self):
            return 1 << 30

        def __getitem__(self, i):
            key = self.keys[i % len(self.keys)]
            read = lambda name: cv2.imread(os.path.join(files, name), cv2.IMREAD_GRAYSCALE)
            return sample(read(key + ".png"), read(key + ".mask.png"), np.random.default_rng([1, i]))

    def one_thread(_):
        torch.set_num_threads(1)
        cv2.setNumThreads(0)

    class Decoded:
        def __init__(self):
            self.rng = None

        def __call__(self, record):
            if self.rng is None:
                cv2.setNumThreads(0)
                torch.set_num_threads(1)
                self.rng = np.random.default_rng([os.getpid(), 1])
            read = lambda b: cv2.imdecode(np.frombuffer(b, np.uint8), cv2.IMREAD_GRAYSCALE)
            return sample(read(record["png"]), read(record["mask.png"]), self.rng)

    if kind.startswith("torch"):
        loader = torch.utils.data.DataLoader(
            Files(), batch_size=BATCH, num_workers=workers, worker_init_fn=one_thread, persistent_workers=True,
            prefetch_factor=4, pin_memory=False)
    else:
        tars = sorted(str(p) for p in pathlib.Path(shards).glob("*.tar"))
        data = webdataset.WebDataset(tars, resampled=True, shardshuffle=False, nodesplitter=None, workersplitter=None,
                                     empty_check=False)
        data = data.shuffle(64).map(Decoded()).batched(BATCH, collation_fn=torch.utils.data.default_collate)
        loader = webdataset.WebLoader(data, batch_size=None, num_workers=workers, persistent_workers=True, prefetch_factor=4,
                                      pin_memory=False)
    torch.set_num_threads(1)
    batches = iter(loader)
    for _ in range(WARM_UP):
        next(batches)
    start, count = time.perf_counter(), 0
    while count < samples:
        images, masks = next(batches)
        assert images.shape[1:] == (1 if byte else 3, SIDE, SIDE) and masks.shape[0] == BATCH
        count += BATCH
    print(json.dumps({"samples_per_second": count / (time.perf_counter() - start)}), flush=True)
    # Ends the workers.
    del batches, loader


# The driver's side.

def tree(pid):
    """A process and its descendants."""
    found, todo = [], [pid]
    while todo:
        at = todo.pop()
        found.append(at)
        for task in pathlib.Path(f"/proc/{at}/task").glob("*/children"):
            try:
                todo += [int(child) for child in task.read_text().split()]
            except OSError:
                pass
    return found


def proportional(pid):
    """Resident bytes of a process tree, each shared page counted once (PSS)."""
    total = 0
    for at in tree(pid):
        try:
            for line in pathlib.Path(f"/proc/{at}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def run(command, watch=False):
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = [0]

    def look():
        while child.poll() is None:
            peak[0] = max(peak[0], proportional(child.pid))
            time.sleep(0.05)

    if watch:
        threading.Thread(target=look, daemon=True).start()
    out, _ = child.communicate()
    if child.returncode:
        sys.exit(f"loader.py: {' '.join(command)} ended with {child.returncode}")
    return json.loads(out)["samples_per_second"], peak[0]


def source(work, build):
    """Real slices of 512 x 512 where they are at hand, else phantoms."""
    real = HERE / "../shared/data/ct100/train.txt"
    if real.exists():
        return real, "79 CT slices of ct100"
    out = work / "phantom"
    if not out.exists():
        subprocess.run([build / "data-shards", "phantom", "--size", str(SIDE), out], check=True, stdout=subprocess.DEVNULL)
    return next(out.glob("train.txt")), "phantom slices"


def prepare(work, build):
    """Shards by our own pack, and their members as files."""
    work.mkdir(parents=True, exist_ok=True)
    chosen, what = source(work, build)
    shards, files = work / "shards", work / "files"
    if not shards.exists():
        subprocess.run([build / "data-shards", "pack", chosen, shards], check=True, stdout=subprocess.DEVNULL)
    if not files.exists():
        files.mkdir()
        for tar in sorted(shards.glob("*.tar")):
            with tarfile.open(tar) as members:
                members.extractall(files, filter="data")
    return shards, files, what


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=HERE / "target/release", help="where cargo put the binaries")
    parser.add_argument("--work", type=pathlib.Path, default=HERE / "target/bench-loader", help="folder for the data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=400, help="a round, each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--peer", nargs=4, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peer:
        return peer(*a.peer, a.workers, a.samples)
    shards, files, what = prepare(a.work, a.build)

    def command(name, recipe):
        if name in OURS:
            return [str(a.build / "examples/loader_bench"), str(shards), OURS[name], recipe, str(a.workers), str(a.samples)]
        return [sys.executable, __file__, "--peer", name, recipe, str(shards), str(files), "--workers", str(a.workers),
                "--samples", str(a.samples)]

    names = [*OURS, *PEERS]
    print(f"{what}, {SIDE}x{SIDE}, {a.workers} workers, batches of {BATCH}, medians of {a.rounds} rounds of {a.samples}")
    print(f"{'recipe':10}{'loader':20}{'samples/s':>10}{'range':>16}{'ratio':>8}{'peak PSS MB':>13}")
    for recipe in a.recipes:
        rates = {name: [] for name in names}
        for _ in range(a.rounds):
            for name in random.sample(names, len(names)):
                rates[name].append(run(command(name, recipe))[0])
        middle = {name: statistics.median(of) for name, of in rates.items()}
        for name in names:
            rivals = [middle[other] for other in PEERS if other.split()[1] == name.split()[1]]
            memory = run(command(name, recipe), watch=True)[1] / 1e6
            low_high = f"{min(rates[name]):.0f}..{max(rates[name]):.0f}"
            print(f"{recipe:10}{name:20}{middle[name]:10.0f}{low_high:>16}{middle[name] / max(rivals):8.2f}{memory:13.0f}",
                  flush=True)


if __name__ == "__main__":
    main()
