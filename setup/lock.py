"""Cargo.lock for a version of PyTorch: python3 lock.py [--check] 2.13|2.11

tch goes with one version of PyTorch, and as it links a native library, a lock file can hold one version of it. All else is the same,
so what the lock file says of tch is exchanged for a line of tch.txt. --check: exit code 1 where it says something else."""
import pathlib
import re
import sys

here = pathlib.Path(__file__).resolve().parent
lock = here.parent / "Cargo.lock"
check, torch = sys.argv[1:-1] == ["--check"], sys.argv[-1]
old = text = lock.read_text()
for line in (here / "tch.txt").read_text().splitlines():
    if line.startswith("#") or line.split()[0] != torch:
        continue
    _, name, version, checksum = line.split()
    entry = rf'(name = "{name}"\nversion = ")[^"]*("\nsource = "[^"]*"\nchecksum = ")[^"]*"'
    text, found = re.subn(entry, rf'\g<1>{version}\g<2>{checksum}"', text)
    if found != 1:
        sys.exit(f"setup: Cargo.lock has {found} entries of {name}, not 1")
if check and text != old:
    sys.exit(f"Cargo.lock is not that of PyTorch {torch}: `make setup TORCH={torch}`, or see setup/tch.txt")
if not check and text != old:
    lock.write_text(text)
    print(f"setup: Cargo.lock is now that of PyTorch {torch} (tch, torch-sys)", file=sys.stderr)
