"""ContrastiveLoss over the batches of all processes, and GapMonitor, in DistributedDataParallel.

torchrun --nproc-per-node 2 examples/ddp.py
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from geomkit import ContrastiveLoss, GapMonitor


class TwoEncoders(nn.Module):
    """Two encoders and the logit scale, whose forward gives what the loss takes."""

    def __init__(self) -> None:
        super().__init__()
        self.encode_image, self.encode_text = (
            nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32))
            for _ in range(2)
        )
        self.logit_scale = nn.Parameter(torch.tensor(20.0).log())

    def forward(self, images: torch.Tensor, texts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return image rows, text rows and the scale."""
        return self.encode_image(images), self.encode_text(texts), self.logit_scale.exp()


def main() -> None:
    """Train on this rank's half of each batch."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)  # the same pairs and the same order on every rank
    shared = torch.randn(900, 16)
    images, texts = (shared @ torch.randn(16, 64) + torch.randn(900, 64) for _ in range(2))

    model = DistributedDataParallel(TwoEncoders())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss = ContrastiveLoss("cua", global_batch=True, normalize=True)
    monitor = GapMonitor((images[600:], texts[600:]), model=model, every=50)

    monitor.measure(0)  # on every rank; the first one measures
    for step in range(1, 101):
        batch = torch.randperm(600)[:128].chunk(ranks)[rank]
        value = loss(*model(images[batch], texts[batch]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        monitor(step)
    if rank == 0:
        before, *_, after = (r.metrics["centroid_distance"] for _, r in monitor.history)
        print(f"centroid distance: {before:.3f} before, {after:.3f} after {step} steps")


if __name__ == "__main__":
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    main()
