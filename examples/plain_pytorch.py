"""ContrastiveLoss and GapMonitor in a plain PyTorch loop, with a learned temperature.

python examples/plain_pytorch.py
"""

import torch
from torch import nn

from geomkit import ContrastiveLoss, GapMonitor

torch.manual_seed(0)
shared = torch.randn(900, 16)  # what an image and its caption have in common
images, texts = (shared @ torch.randn(16, 64) + torch.randn(900, 64) for _ in range(2))

encoders = nn.ModuleList(
    nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32)) for _ in range(2)
)
log_scale = nn.Parameter(torch.tensor(20.0).log())
optimizer = torch.optim.AdamW([*encoders.parameters(), log_scale], lr=1e-3)
loss = ContrastiveLoss("cua", normalize=True)
monitor = GapMonitor(
    (images[600:], texts[600:]),
    model=encoders,
    every=100,
    metrics=["centroid_distance", "text_retrieval_recall@1"],
    log=print,
)

monitor.measure(0)
for step in range(1, 301):
    batch = torch.randperm(600)[:128]
    value = loss(encoders[0](images[batch]), encoders[1](texts[batch]), log_scale.exp())
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    monitor(step)

before, *_, after = (result.metrics["centroid_distance"] for _, result in monitor.history)
print(f"centroid distance: {before:.3f} before, {after:.3f} after {step} steps")
