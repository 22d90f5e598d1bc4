"""Writes the data sets of a collection again with COUNT samples a shard, from docs/shard-format.md alone.

    python small_shards.py COLLECTION COUNT
"""

import csv
import hashlib
import io
import json
import pathlib
import sys
import tarfile

MEMBERS = {"png": "png", "mask": "mask.png", "json": "json", "vgg": "vgg.npy", "res2net": "res2net.npy"}


def members(folder, index, row):
    for kind, extension in MEMBERS.items():
        if row[f"{kind}_offset"]:
            with open(folder / index["shards"][int(row["shard"])]["name"], "rb") as shard:
                shard.seek(int(row[f"{kind}_offset"]))
                yield kind, f"{row['key']}.{extension}", shard.read(int(row[f"{kind}_size"]))


def shard(name, number, samples):
    """A tar of samples, and their rows."""
    out, rows = io.BytesIO(), []
    tar = tarfile.TarFile(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT)
    for row, parts in samples:
        row["shard"] = number
        for kind, member, data in parts:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            row[f"{kind}_offset"] = tar.offset - (len(data) + 511) // 512 * 512
        rows.append(row)
    out.write(bytes(1024))
    return {"name": name, **listed(out.getvalue()), "samples": len(rows)}, out.getvalue(), rows


def listed(data):
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def rewrite(folder, count):
    index = json.loads((folder / "index.json").read_text())
    with open(folder / "samples.csv", newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    columns = list(rows[0])
    samples = [(row, list(members(folder, index, row))) for row in rows]
    (folder / "index.json").unlink()
    shards, all_rows = [], []
    for number, start in enumerate(range(0, len(samples), count)):
        head, data, rows = shard(f"{index['split']}-{number:06}.tar", number, samples[start : start + count])
        (folder / head["name"]).write_bytes(data)
        shards.append(head)
        all_rows += rows
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(all_rows)
    data = table.getvalue().encode()
    (folder / "samples.csv").write_bytes(data)
    index |= {"shards": shards, "samples_file": {"name": "samples.csv", **listed(data)}}
    (folder / "index.json").write_text(json.dumps(index))


collection = pathlib.Path(sys.argv[1])
for split in json.loads((collection / "index.json").read_text())["splits"]:
    rewrite(collection / split, int(sys.argv[2]))
