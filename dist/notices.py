"""What an archive says of its contents: python3 notices.py DEPS FOLDER ABSENT,... REQUIREMENTS...

Writes FOLDER/licences (of every crate in the programs, of Rust's library, and of the wheels that REQUIREMENTS, files of setup/, list, those
of ABSENT left out) and FOLDER/sbom.cdx.json, a bill of materials in CycloneDX 1.6, of the time SOURCE_DATE_EPOCH. Runs in the repository's root, where `cargo`
knows the crates.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import uuid
from pathlib import Path

TARGET = f"{platform.machine()}-unknown-linux-gnu"
PROGRAMS = ["jcs", "jcs-launch", "data-shards"]
TEXTS = re.compile(r"(licen[cs]e|copying|notice|copyright|unlicense)", re.IGNORECASE)

RUST = """The programs contain the standard library of Rust {}, copyright The Rust Project contributors, under the MIT or the Apache-2.0
licence, whose texts are LICENSE-MIT and LICENSE-APACHE beside this folder. https://www.rust-lang.org
"""
GOMP = """lib/libgomp.so.1 is GCC's runtime library of OpenMP, as PyTorch's wheel has it: copyright Free Software Foundation, under the GNU General
Public License, version 3 or later (https://www.gnu.org/licenses/gpl-3.0.txt), with the GCC Runtime Library Exception, version 3.1
(https://www.gnu.org/licenses/gcc-exception-3.1.html), which lets programs of any licence use it. Its sources: https://gcc.gnu.org
"""


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def crates():
    """The crates that are linked into the programs, those of the workspace left out."""
    packages = [word for program in PROGRAMS for word in ("-p", program)]
    tree = output("cargo", "tree", "--locked", "--edges", "normal,no-proc-macro", "--target", TARGET, "--prefix", "none", "--format", "{p}", *packages)
    linked = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET))
    # Procedural macros are linked into the compiler, not into the programs.
    macros = {p["id"] for p in metadata["packages"] if any("proc-macro" in t["kind"] for t in p["targets"])}
    found = [p for p in metadata["packages"] if p["source"] and p["id"] not in macros and (p["name"], "v" + p["version"]) in linked]
    return sorted(found, key=lambda p: (p["name"], p["version"]))


def checksums():
    """Of each crate's archive, as Cargo.lock has them."""
    lock = Path("Cargo.lock").read_text()
    entry = re.compile(r'name = "([^"]+)"\nversion = "([^"]+)"\nsource = "[^"]+"\nchecksum = "([^"]+)"')
    return {(name, version): checksum for name, version, checksum in entry.findall(lock)}


def crate_licences(packages, out):
    """One file: each text once, and whose it is."""
    texts, none = {}, []
    for p in packages:
        folder = Path(p["manifest_path"]).parent
        files = sorted(f for f in folder.iterdir() if f.is_file() and TEXTS.match(f.name))
        if not files:
            none.append(p)
        for file in files:
            text = file.read_text(errors="replace").strip()
            texts.setdefault(text, []).append(f"{p['name']} {p['version']}")
    with open(out, "w") as f:
        f.write("Licences of the Rust crates that are linked into the programs.\n\n")
        for p in packages:
            f.write(f"{p['name']} {p['version']}: {p['license'] or 'see its file below'}  {p['repository'] or ''}\n")
        if none:
            f.write("\nWithout a file of their own, so that the licence named above holds: " + ", ".join(f"{p['name']} {p['version']}" for p in none) + "\n")
        for text, owners in sorted(texts.items(), key=lambda item: item[1]):
            f.write(f"\n{'=' * 100}\n{', '.join(dict.fromkeys(owners))}\n{'=' * 100}\n\n{text}\n")


def wheels(requirements):
    """Name, version and checksum of each line."""
    text = "\n".join(Path(file).read_text() for file in requirements).replace("\\\n", "")
    found = re.findall(r"^([\w-]+)==(\S+)((?:\s+--hash=sha256:\w+)+)", text, re.MULTILINE)
    which = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    return [(name, version, sums.split()[which].removeprefix("--hash=sha256:")) for name, version, sums in found]


def wheel_folder(deps, name, version):
    return Path(deps, "licences", f"{name.replace('-', '_')}-{version}")


def texts_inside(deps, name):
    """Those that a wheel of NVIDIA's keeps beside its libraries."""
    package = Path(deps, "nvidia", re.sub(r"-cu\d+$", "", name.removeprefix("nvidia-")))
    return [file for file in package.iterdir() if file.is_file() and TEXTS.match(file.name)] if package.is_dir() else []


def parts(folder, texts):
    """What is built into a wheel and has a text of its own there, LICENSE.NAME or third_party/NAME/…; its version is the wheel's affair."""
    names = set()
    for file in (text.relative_to(folder) for text in texts):
        if file.parts[0] == "third_party":
            names.add(file.parts[1])
        elif len(file.parts) == 1 and file.stem == "LICENSE" and file.suffix not in ("", ".txt", ".rst", ".md"):
            names.add(file.suffix.removeprefix("."))
    return names


def component(name, version, kind, licence, checksum, url):
    purl = f"pkg:{kind}/{name}@{urllib.parse.quote(version)}"
    made = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence:
        made["licenses"] = [{"expression": licence}] if kind != "pypi" else [{"license": {"name": licence}}]
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if url:
        made["externalReferences"] = [{"type": "website", "url": url}]
    return made


def field(metadata, *names):
    found = [re.search(rf"^{name}: (.+)$", metadata, re.MULTILINE) for name in names]
    return next((m[1] for m in found if m), None)


def main():
    deps, folder, absent, *requirements = sys.argv[1:]
    licences = Path(folder, "licences")
    licences.mkdir()
    packages, sums = crates(), checksums()
    crate_licences(packages, licences / "rust-crates.txt")
    rustc = output("rustc", "--version").split()[1]
    (licences / f"rust-{rustc}").write_text(RUST.format(rustc))
    # cargo writes the older form with a slash, too.
    components = [
        component(p["name"], p["version"], "cargo", (p["license"] or "").replace("/", " OR "), sums.get((p["name"], p["version"])), p["repository"])
        for p in packages
    ]
    for name, version, checksum in wheels(requirements):
        if name in absent.split(","):
            continue
        place = wheel_folder(deps, name, version)
        if not (place / "METADATA").exists():
            sys.exit(f"notices: nothing is known of the licence of {name} {version}: remove {deps}/*.stamp and run `make setup` again")
        metadata = (place / "METADATA").read_text(errors="replace").split("\n\n")[0]
        shutil.copytree(place, licences / f"{name}-{version}", ignore=shutil.ignore_patterns("METADATA"))
        for file in texts_inside(deps, name):
            shutil.copy(file, licences / f"{name}-{version}")
        texts = [file for file in (licences / f"{name}-{version}").rglob("*") if file.is_file()]
        if not texts:
            sys.exit(f"notices: the wheel of {name} {version} has no text of its licence")
        licence = field(metadata, "License-Expression", "License")
        components.append(component(name, version, "pypi", licence, checksum, field(metadata, "Home-page")))
        inside = sorted(parts(licences / f"{name}-{version}", texts))
        components += [component(part, f"in-{name}-{version}", "generic", None, None, None) for part in inside]
    components.append(component("rust-std", rustc, "generic", "MIT OR Apache-2.0", None, "https://www.rust-lang.org"))
    if Path(folder, "lib/libgomp.so.1").exists():
        (licences / "libgomp").write_text(GOMP)
        components.append(component("libgomp", "in-torch", "generic", "GPL-3.0-or-later WITH GCC-exception-3.1", None, "https://gcc.gnu.org"))
    version = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--no-deps"))["packages"][0]["version"]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": "",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))),
            "component": {"type": "application", "bom-ref": "jcs-launch", "name": "jcs-launch", "version": version, "licenses": [{"expression": "MIT OR Apache-2.0"}]},
        },
        "components": components,
    }
    references = [part["bom-ref"] for part in components]
    if twice := sorted({one for one in references if references.count(one) > 1}):
        sys.exit(f"notices: more than one component is called {', '.join(twice)}")
    # The same contents are the same bill.
    digest = hashlib.sha256(json.dumps(bill).encode()).digest()
    bill["serialNumber"] = f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}"
    Path(folder, "sbom.cdx.json").write_text(json.dumps(bill, indent=1) + "\n")
    print(f"notices: {len(packages)} crates, {len(components) - len(packages)} other components", file=sys.stderr)


if __name__ == "__main__":
    main()
