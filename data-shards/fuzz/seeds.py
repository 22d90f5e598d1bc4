"""Writes the first inputs of the fuzz target `mat` into the folder named: python3 seeds.py corpus/mat (needs scipy)."""

import pathlib
import sys

import numpy as np
import scipy.io

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
kinds = "u1 i1 u2 i2 u4 i4 u8 i8 f4 f8 ? c16".split()
for compressed in (False, True):
    for kind in kinds:
        values = np.arange(24).reshape(1, 4, 3, 2).astype(kind)
        for name, saved in {
            "both": {"vgg_feats": values, "res2net_feats": values[:, :, :1, :1]},
            "one": {"other": values, "vgg_feats": values[0]},
        }.items():
            scipy.io.savemat(folder / f"{name}-{kind}-{compressed}.mat", saved, do_compression=compressed)
    kept = {"text": "words", "cell": np.array([1, "two"], dtype=object), "struct": {"x": 1.0}}
    scipy.io.savemat(folder / f"kinds-{compressed}.mat", {**kept, "vgg_feats": values.real.astype("u1")}, do_compression=compressed)
    scipy.io.savemat(folder / f"text-{compressed}.mat", {"vgg_feats": "words"}, do_compression=compressed)
scipy.io.savemat(folder / "version4.mat", {"vgg_feats": np.eye(2)}, format="4")
