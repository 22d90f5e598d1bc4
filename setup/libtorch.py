"""What `make setup TORCH=PYTHON` asks that Python of its torch; a value a line: its version, its folder, the CUDA it is built for and
the NCCL that it uses (the last two empty where there is none)."""
import os
import sys


def refuse(why):
    sys.exit(f"setup: {sys.executable}: {why}")


try:
    import torch
except Exception as e:  # whatever its libraries raise
    refuse(f"import torch fails: {e}")
if not torch._C._GLIBCXX_USE_CXX11_ABI:
    refuse(f"torch {torch.__version__} is built with the C++ ABI of before 2015, which nothing here is")
folder = os.path.dirname(torch.__file__)
for part in ("include/torch", "lib/libtorch_cpu.so", "lib/libc10.so"):
    if not os.path.exists(os.path.join(folder, part)):
        refuse(f"torch {torch.__version__} is not laid out as PyPI's and pytorch.org's are: no {folder}/{part}")
if torch.version.hip:
    refuse(f"torch {torch.__version__} is built for ROCm; CUDA and CPU builds are supported")
with open("/proc/self/maps") as maps:
    nccl = {line.split(maxsplit=5)[5].strip() for line in maps if "/libnccl.so" in line}
if not nccl and torch.version.cuda:
    # Built into libtorch_cuda.so, where nobody else can call it: perhaps there is another one.
    places = [*os.environ.get("LD_LIBRARY_PATH", "").split(":"), os.path.join(sys.prefix, "lib"), os.path.join(os.path.dirname(folder), "nvidia/nccl/lib")]
    files = [os.path.join(place, name) for place in places if place for name in ("libnccl.so.2", "libnccl.so")]
    nccl = set([file for file in files if os.path.exists(file)][:1])
    if not nccl:
        print(f"setup: {sys.executable}: no libnccl.so beside this torch, which has NCCL built in: several GPUs need one on LD_LIBRARY_PATH", file=sys.stderr)
print(torch.__version__, folder, torch.version.cuda or "", *(sorted(nccl) or [""])[:1], sep="\n")
