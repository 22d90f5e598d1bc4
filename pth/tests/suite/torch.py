# Run by torch.rs. `write FOLDER`: files by torch.save, and beside each `.pth` what is in it as `.txt` (name, type, shape)
# and `.bin` (the bytes of all tensors). `check FOLDER`: loads every `.out` as strictly as PyTorch can and compares.
import collections
import os
import pathlib
import sys

import torch

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "Bf16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "Bool": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def net():
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.PReLU(), torch.nn.Linear(7, 4, bias=False)
    return torch.nn.Sequential(*layers)


def trained(model):
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    return {"epoch": 7, "best": 0.5, "note": "ü", "rng": torch.get_rng_state(), "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(), "log": [1.5, None, (True, 1 << 40, -5)]}


def views():
    base = torch.arange(60.0).reshape(3, 4, 5)
    buffer = torch.arange(20)
    return collections.OrderedDict(
        transposed=base.permute(2, 0, 1), sliced=base[1:, ::2, 1:4], column=base[:, 1, 2], whole=base,
        expanded=torch.tensor([1.0, 2.0]).expand(6, 2), scalar=torch.tensor(3), empty=torch.zeros(0, 4),
        empty_slice=base[3:, 4:], part=buffer[5:9], same=buffer[5:9], overlapping=buffer.unfold(0, 6, 3))


def dtypes():
    values = torch.arange(-6, 6)
    return {name: (values % 2 if name == "Bool" else values.abs() if name == "U8" else values).to(dtype).reshape(3, 4)
            for name, dtype in DTYPES.items()}


def tied():
    model = net()
    state = model.state_dict()
    state["tied"] = state["3.weight"]
    return state


def cases():
    model = net()
    state = model.state_dict()
    yield "plain", state, state
    yield "views", views(), views()
    yield "dtypes", dtypes(), dtypes()
    yield "tied", tied(), tied()
    yield "half", *[{name: value.half() for name, value in state.items()}] * 2
    yield "parallel", torch.nn.DataParallel(model).state_dict(), state
    yield "parameters", dict(model.named_parameters()), dict(model.named_parameters())
    for wrapper in "state_dict", "model", "model_state_dict", "net", "network":
        yield f"in_{wrapper}", {**trained(model), wrapper: model.state_dict()}, model.state_dict()


def raw(tensor):
    tensor = tensor.detach().contiguous()
    return bytes(tensor.flatten().view(torch.uint8).tolist()) if tensor.dtype != torch.bool else bytes(tensor.flatten().tolist())


def save(folder, name, saved, expected, **options):
    torch.save(saved, folder / f"{name}.pth", **options)
    lines = [f"{key} {NAMES[value.dtype]} {','.join(map(str, value.shape))}" for key, value in expected.items()]
    (folder / f"{name}.txt").write_text("".join(line + "\n" for line in lines))
    (folder / f"{name}.bin").write_bytes(b"".join(raw(value) for value in expected.values()))


class Malicious:
    def __reduce__(self):
        return os.system, (f"touch {sys.argv[2]}/was_run",)


def write(folder):
    for name, saved, expected in cases():
        save(folder, f"{name}.zip", saved, expected)
        save(folder, f"{name}.zip4", saved, expected, pickle_protocol=4)
        save(folder, f"{name}.old", saved, expected, _use_new_zipfile_serialization=False)
        save(folder, f"{name}.old4", saved, expected, _use_new_zipfile_serialization=False, pickle_protocol=4)
    torch.serialization.set_crc32_options(False)
    save(folder, "no_crc.zip", views(), views())
    torch.serialization.set_crc32_options(True)
    for new in True, False:
        where = folder / f"malicious.{'zip' if new else 'old'}"
        torch.save({"state_dict": net().state_dict(), "x": Malicious()}, where, _use_new_zipfile_serialization=new)


def check(folder):
    for name, _, expected in cases():
        for kind in "zip", "zip4", "old", "old4":
            for mapped in False, True:
                loaded = torch.load(folder / f"{name}.{kind}.out", weights_only=True, mmap=mapped)
                assert type(loaded) is collections.OrderedDict, type(loaded)
                assert list(loaded) == list(expected), name
                for key, value in expected.items():
                    assert loaded[key].dtype == value.dtype and loaded[key].shape == value.shape, (name, key)
                    assert loaded[key].is_contiguous() and raw(loaded[key]) == raw(value), (name, key)
            if name in ("plain", "parallel") or name.startswith("in_"):
                model = net()
                torch.nn.init.zeros_(model[0].weight)
                model.load_state_dict(loaded, strict=True)
                assert torch.equal(model[0].weight, expected["0.weight"])
    print("compared")


{"write": write, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))
