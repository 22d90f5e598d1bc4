"""Writes the first inputs of the fuzz target `shard` into the folder named: python3 seeds_shard.py corpus/shard."""

import io
import json
import pathlib
import struct
import sys
import tarfile
import zlib

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
MARK = b"\0\xff--\xff\0"
KINDS = {"png": "png", "mask": "mask.png", "json": "json", "vgg": "vgg.npy", "res2net": "res2net.npy"}


def png(value):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes([0, value, value, 0, value, 0]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def npy(shape, dtype="|u1"):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    count = 1
    for size in shape:
        count *= size
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(count * int(dtype[-1]))


def seed(name, samples, listed=None):
    tar, rows = io.BytesIO(), []
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for key, (label, patient, members) in samples.items():
            facts = json.dumps({"label": label, "patient": patient}).encode()
            cells = [key, "0", "" if label is None else str(label), patient or ""]
            for kind, extension in KINDS.items():
                data = facts if kind == "json" else members.get(kind)
                if data is None:
                    cells += ["", "", ""]
                    continue
                entry = tarfile.TarInfo(f"{key}.{extension}")
                entry.size = len(data)
                offset = archive.offset + 512
                archive.addfile(entry, io.BytesIO(data))
                cells += [str(offset), str(len(data)), f"{zlib.crc32(data):08x}"]
            rows.append(",".join(cells))
    columns = ["key", "shard", "label", "patient"]
    columns += [f"{kind}_{what}" for kind in KINDS for what in ("offset", "size", "crc32")]
    table = "\n".join([",".join(columns), *rows, ""]).encode()
    none = "0" * 64
    index = {
        "format": "jcs-shards",
        "version": 1,
        "split": "train",
        "samples": len(rows),
        "patients": len({patient for _, patient, _ in samples.values() if patient}),
        "samples_file": {"name": "samples.csv", "bytes": 0, "sha256": none},
        "shards": [{"name": "train-000000.tar", "bytes": 0, "sha256": none, "samples": len(rows)}],
        **(listed or {}),
    }
    (folder / name).write_bytes(MARK.join([json.dumps(index).encode(), table, tar.getvalue()]))


image = {"png": png(7), "mask": png(255)}
seed("one", {"a": (1, "p", image)})
seed("several", {"a": (0, "p", image), "b": (None, None, {"png": png(1)}), "c": (1, "q", image)})
seed("features", {"a": (1, "p", {"vgg": npy((1, 2, 2, 2)), "res2net": npy((2, 1, 1), "<f4"), "mask": png(0)})})
seed("newer", {"a": (1, "p", image)}, {"version": 2})
(folder / "array").write_bytes(MARK + MARK + npy((3, 1)))
(folder / "collection").write_bytes(json.dumps({"format": "jcs-shards", "version": 1, "splits": ["train", "val"]}).encode())
