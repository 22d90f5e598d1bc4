"""What bench/reliability.py starts with torchrun: data-parallel PyTorch (DDP, Gloo) up to the end of its first step.

A few convolutions on random images: what is timed is the way to the first step, not the step. Rank 0 appends the time to FILE.
"""
import sys
import time

import torch
import torch.distributed as dist


def main():
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 3))
    network = torch.nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(1, 3, 64, 64)).mean().backward()
    optimizer.step()
    if dist.get_rank() == 0:
        with open(sys.argv[1], "a") as out:
            out.write(f"{time.time()}\n")
    dist.destroy_process_group()


main()
