"""The JCS networks in PyTorch, and a training step of them: the peer of scripts/gpu-bench.

Written from the description of the layers (Wu et al., TIP 2021, and the official code's tensor names); `python3 bench/torch_jcs.py
tests/reference` compares both networks with what the official implementation computes. A step is what a careful PyTorch user
writes: channels-last, bf16 autocast, fused Adam, gradients set to none.
"""
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F


class FrozenNorm(nn.Module):
    """Batch norm whose four tensors are constants, without an epsilon."""

    def __init__(self, channels):
        super().__init__()
        for name, value in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]:
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x):
        scale = self.weight * self.running_var.rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.to(x.dtype).view(1, -1, 1, 1) + shift.to(x.dtype).view(1, -1, 1, 1)


class ConvRelu(nn.Module):
    """Convolution with bias, a norm where one is given, ReLU."""

    def __init__(self, inputs, outputs, size, norm=None):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        self.bn = norm(outputs) if norm else nn.Identity()

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


def resize(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class Vgg16(nn.Module):
    STAGES = [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]

    def __init__(self):
        super().__init__()
        channels = 3
        for stage, (blocks, width) in enumerate(self.STAGES, 1):
            for block in range(1, blocks + 1):
                setattr(self, f"conv{stage}_{block}", ConvRelu(channels, width, 3, FrozenNorm))
                channels = width

    def forward(self, x):
        features = []
        for stage, (blocks, _) in enumerate(self.STAGES, 1):
            if 2 <= stage <= 4:
                x = F.max_pool2d(x, 2)
            for block in range(1, blocks + 1):
                x = getattr(self, f"conv{stage}_{block}")(x)
            features.append(x)
        return features


class Squeeze(nn.Module):
    """Squeeze and excitation with this many hidden units."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x):
        scale = self.linear2(F.relu(self.linear1(x.mean((2, 3))))).sigmoid()
        return x * scale.to(x.dtype)[:, :, None, None]


class Gpd(nn.Module):
    """Enhanced feature module."""

    def __init__(self, channels, dilations):
        super().__init__()
        group = channels // 2
        self.expand_conv = ConvRelu(channels, 2 * channels, 1)
        self.reduce_conv = ConvRelu(2 * channels, channels, 1)
        self.end_conv = ConvRelu(channels, channels, 3)
        self.se_block = Squeeze(2 * channels, channels // 2)
        self.dilation_convs = nn.ModuleList(nn.Conv2d(group, group, 3, padding=d, dilation=d) for d in dilations)

    def forward(self, x):
        groups = self.expand_conv(x).chunk(4, 1)
        x = torch.cat([conv(group) for conv, group in zip(self.dilation_convs, groups)], 1)
        return self.end_conv(self.reduce_conv(self.se_block(F.relu(x, inplace=True))))


class AttentiveFusion(nn.Module):
    def __init__(self, channels):
        super().__init__()
        wide = channels + channels // 2
        self.se1, self.conv1 = Squeeze(channels, 1), ConvRelu(channels, channels, 3)
        self.se2, self.reduce_conv = Squeeze(wide, 1), ConvRelu(wide, channels, 1)
        self.conv2 = ConvRelu(channels, channels, 3)

    def forward(self, low, high):
        x = self.conv1(self.se1(torch.cat([low, high], 1)))
        return self.conv2(self.reduce_conv(self.se2(torch.cat([x, high], 1))))


class Fpn(nn.Module):
    WIDTHS = [64, 128, 256, 512, 512, 512]

    def __init__(self):
        super().__init__()
        widths = self.WIDTHS
        self.inners_a = nn.ModuleList(ConvRelu(w, w // 2, 1) for w in widths[:5])
        self.inners_a.append(ConvRelu(512, 512, 1))
        self.inners_b = nn.ModuleList(ConvRelu(widths[i + 1], widths[i] // 2, 1) for i in range(5))
        self.fuse = nn.ModuleList(AttentiveFusion(w) for w in widths[:5])
        self.fuse.append(ConvRelu(512, 512, 3))

    def forward(self, features):
        s = self.fuse[5](self.inners_a[5](features[5]))
        outputs = []
        for i in reversed(range(5)):
            high = resize(self.inners_b[i](s), features[i].shape[2:])
            s = self.fuse[i](self.inners_a[i](features[i]), high)
            outputs.insert(0, s)
        return outputs


class Bottle2neck(nn.Module):
    def __init__(self, inputs, planes, stride, first):
        super().__init__()
        width = planes * 26 // 64
        self.first, self.stride = first, stride
        self.conv1, self.bn1 = nn.Conv2d(inputs, 4 * width, 1, bias=False), FrozenNorm(4 * width)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, stride, 1, bias=False) for _ in range(3))
        self.bns = nn.ModuleList(FrozenNorm(width) for _ in range(3))
        self.conv3, self.bn3 = nn.Conv2d(4 * width, 4 * planes, 1, bias=False), FrozenNorm(4 * planes)
        if first:
            pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
            self.downsample = nn.Sequential(pool, nn.Conv2d(inputs, 4 * planes, 1, bias=False), FrozenNorm(4 * planes))

    def forward(self, x):
        splits = F.relu(self.bn1(self.conv1(x)), inplace=True).chunk(4, 1)
        outputs = []
        for i in range(3):
            part = splits[i] if i == 0 or self.first else outputs[-1] + splits[i]
            outputs.append(F.relu(self.bns[i](self.convs[i](part)), inplace=True))
        outputs.append(F.avg_pool2d(splits[3], 3, self.stride, 1) if self.first else splits[3])
        y = self.bn3(self.conv3(torch.cat(outputs, 1)))
        return F.relu(y + (self.downsample(x) if self.first else x), inplace=True)


class Res2Net101(nn.Module):
    def __init__(self):
        super().__init__()
        conv = lambda i, o, stride=1: nn.Conv2d(i, o, 3, stride, 1, bias=False)  # noqa: E731
        self.conv1 = nn.Sequential(conv(3, 32, 2), FrozenNorm(32), nn.ReLU(), conv(32, 32), FrozenNorm(32), nn.ReLU(), conv(32, 64))
        self.bn1 = FrozenNorm(64)
        channels = 64
        for n, (blocks, planes) in enumerate([(3, 64), (4, 128), (23, 256), (3, 512)], 1):
            stride = 1 if n == 1 else 2
            layer = [Bottle2neck(channels, planes, stride, True)]
            channels = 4 * planes
            layer += [Bottle2neck(channels, planes, 1, False) for _ in range(blocks - 1)]
            setattr(self, f"layer{n}", nn.Sequential(*layer))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        features = [x]
        x = F.max_pool2d(x, 3, 2, 1)
        for n in range(1, 5):
            x = getattr(self, f"layer{n}")(x)
            features.append(x)
        return features


class Fuse(nn.Module):
    """Of the two encoders' features."""

    def __init__(self):
        super().__init__()
        vgg, res = [64, 128, 256, 512, 512], [64, 256, 512, 1024, 2048]
        self.cat_modules = nn.ModuleList(ConvRelu(v + r, v, 3, nn.BatchNorm2d) for v, r in zip(vgg, res))
        self.se_modules = nn.ModuleList(ConvRelu(v, v, 3, nn.BatchNorm2d) for v in vgg)
        self.fuse_modules = nn.ModuleList(ConvRelu(v, v, 3, nn.BatchNorm2d) for v in vgg)

    def forward(self, vgg, res):
        fused = []
        for i, (v, r) in enumerate(zip(vgg, res)):
            x = torch.cat([resize(v, r.shape[2:]), r], 1)
            fused.append(self.fuse_modules[i](self.se_modules[i](self.cat_modules[i](x))))
        return fused


class Jcs(nn.Module):
    """`single` or `joint`: logits of five maps, (N, 5, H, W)."""

    def __init__(self, joint):
        super().__init__()
        self.vgg16 = Vgg16()
        self.res2net, self.fuse = (Res2Net101(), Fuse()) if joint else (None, None)
        self.gpd, self.gpd1, self.fpn = Gpd(512, (1, 3, 6, 9)), Gpd(512, (1, 2, 3, 4)), Fpn()
        for i, width in enumerate([64, 128, 256, 512, 512], 1):
            setattr(self, f"cls{i}", nn.Conv2d(width, 1, 1))

    def forward(self, x):
        size = x.shape[2:]
        features = self.vgg16(x)
        features[4] = self.gpd(features[4])
        sixth = self.gpd1(F.max_pool2d(features[4], 2))
        if self.res2net is not None:
            features = self.fuse(features, self.res2net(x))
        outputs = self.fpn([*features, sixth])
        return torch.cat([resize(getattr(self, f"cls{i + 1}")(x), size) for i, x in enumerate(outputs)], 1)


def loss_of(logits, mask, epsilon=1e-5):
    logits, target = logits.float(), mask[:, None].expand_as(logits)
    p = logits.sigmoid()
    dice = 1 - (2 * (p * target).sum((0, 2, 3)) + epsilon) / (p.sum((0, 2, 3)) + target.sum((0, 2, 3)) + epsilon)
    return 5 * F.binary_cross_entropy_with_logits(logits, target) + dice.sum()


def safetensors(file):
    """The tensors of a safetensors file, and its metadata."""
    kinds = {"F32": torch.float32, "I64": torch.int64, "U8": torch.uint8, "BF16": torch.bfloat16}
    data = bytearray(Path(file).read_bytes())
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    metadata = head.pop("__metadata__", {})
    tensors = {}
    for name, about in head.items():
        begin, end = about["data_offsets"]
        kind = kinds[about["dtype"]]
        count = (end - begin) // torch.empty((), dtype=kind).element_size()
        values = torch.frombuffer(data, dtype=kind, count=count, offset=8 + size + begin) if count else torch.empty(0, dtype=kind)
        tensors[name] = values.reshape(about["shape"]).clone()
    return tensors, metadata


def filled(name, shape):
    """The value that the reference files were made with: SplitMix64 from the name's FNV-1a, seed 1."""
    mask = (1 << 64) - 1
    start = 0xCBF29CE484222325
    for byte in name.encode():
        start = (start ^ byte) * 0x100000001B3 & mask
    import numpy as np

    count = int(np.prod(shape, dtype=np.int64)) if shape else 1
    with np.errstate(over="ignore"):
        z = np.uint64((start + 1) & mask) + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, count + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        u = ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.float64) / (1 << 24) - 0.5
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        u = 1 + 0.4 * u
    elif leaf == "running_mean":
        u = 0.1 * u
    elif leaf == "num_batches_tracked":
        u = 0 * u
    elif len(shape) >= 2:
        u = u * (24 / np.prod(shape[1:])) ** 0.5
    elif leaf == "weight":
        u = (0.2 if name.endswith("bn3.weight") else 1.0) * (1 + 0.2 * u)
    else:
        u = 0.1 * u
    return torch.from_numpy(u.astype(np.float32)).reshape(shape)


def verify(folder):
    """Both networks against the official outputs and losses, in float32 on the CPU."""
    for name in ("single", "joint"):
        network = Jcs(name == "joint").eval()
        keys = [line.split("\t") for line in (Path(folder) / f"{name}.keys.tsv").read_text().splitlines()]
        state = {key: filled(key, [int(n) for n in shape.split("x") if n]).to(getattr(torch, kind)) for key, shape, kind in keys}
        network.load_state_dict(state)
        r, _ = safetensors(Path(folder) / f"{name}.safetensors")
        with torch.no_grad():
            logits = network(r["input"])
        far = lambda a, b: ((a - b).norm() / b.norm()).item()  # noqa: E731
        output, loss = far(logits.sigmoid(), r["output"]), far(loss_of(logits, r["mask"]), r["loss"])
        print(f"{name}: output {output:.1e}, loss {loss:.1e} from the official implementation's")
        if not max(output, loss) < 1e-4:
            sys.exit(f"torch_jcs: {name} is not the official network")


def bench(kind, weights, batch, size, steps, compiled, device, progress, precision="bf16"):
    """Medians of steps of training: seconds each, seconds that the host was busy, peak memory, first losses. `progress` gets a line a step."""
    cuda = device == "cuda"
    torch.backends.cudnn.benchmark = True
    network = Jcs(kind == "joint").eval()
    network.load_state_dict(safetensors(weights)[0])
    network = network.to(device, memory_format=torch.channels_last)
    step_network = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), lr=2.5e-5, weight_decay=1e-4, fused=True)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, size, size, generator=generator).to(device, memory_format=torch.channels_last)
    mask = (torch.rand(batch, size, size, generator=generator) > 0.9).float().to(device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times, host, losses = [], [], []
    for step in range(steps):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            logits = step_network(x)
        loss = loss_of(logits, mask)
        loss.backward()
        optimizer.step()
        host.append(time.perf_counter() - began)
        # Waits for the GPU.
        losses.append(loss.item())
        times.append(time.perf_counter() - began)
        with open(progress, "a") as file:
            file.write(f"{step}\n")
    skip = min(len(times) // 3, 10)
    memory = torch.cuda.max_memory_allocated() if cuda else 0
    return {"seconds": statistics.median(times[skip:]), "host_seconds": statistics.median(host[skip:]), "peak_bytes": memory, "losses": losses[:3]}


if __name__ == "__main__":
    if len(sys.argv) == 2:
        verify(sys.argv[1])
    else:
        kind, weights, batch, size, steps, how, device, progress = sys.argv[1:9]
        print(json.dumps(bench(kind, weights, int(batch), int(size), int(steps), how == "compile", device, progress)))
