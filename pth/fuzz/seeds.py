# Small files by PyTorch of both formats, and their pickles, as seeds: `seeds.py FOLDER` writes FOLDER/{read,unpickle}/.
import pathlib
import sys
import zipfile

import torch

folder = pathlib.Path(sys.argv[1])
for target in "read", "unpickle":
    (folder / target).mkdir(parents=True, exist_ok=True)
model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
base = torch.arange(6.0).reshape(2, 3)
objects = {
    "state": model.state_dict(),
    "wrapped": {"state_dict": model.state_dict(), "epoch": 3, "optimizer": torch.optim.Adam(model.parameters()).state_dict()},
    "views": {"a": base.t(), "b": base[:, 1], "c": base[0].expand(2, 3), "d": torch.nn.Parameter(base), "e": torch.tensor(True)},
    "small": {"w": torch.zeros(1, dtype=torch.bfloat16)},
}
for name, value in objects.items():
    for protocol in 2, 4:
        new, old = folder / "read" / f"{name}{protocol}.zip", folder / "read" / f"{name}{protocol}.old"
        torch.save(value, new, pickle_protocol=protocol)
        torch.save(value, old, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
        with zipfile.ZipFile(new) as archive:
            pickle = next(entry for entry in archive.namelist() if entry.endswith("/data.pkl"))
            (folder / "unpickle" / f"{name}{protocol}").write_bytes(archive.read(pickle))
