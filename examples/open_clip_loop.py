"""ContrastiveLoss in the place of open_clip.ClipLoss, and GapMonitor, in open_clip's training step.

python examples/open_clip_loop.py

The step is that of open_clip_train.train. A small model on OpenMoji's images and names; a model of
open_clip.create_model_and_transforms and its loader take their place.
"""

import math

import open_clip
import torch

from geomkit import ContrastiveLoss, GapMonitor
from geomkit.data import load_data

torch.manual_seed(0)
pairs = load_data("openmoji", n=600)
images = torch.from_numpy(pairs.pixels()).permute(0, 3, 1, 2) / 127.5 - 1
texts = open_clip.SimpleTokenizer(context_length=16)(pairs.names)
model = open_clip.CLIP(
    embed_dim=32,
    vision_cfg={"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    text_cfg={"context_length": 16, "width": 32, "heads": 2, "layers": 2},
    output_dict=True,
)
loss = ContrastiveLoss("cua")  # open_clip.ClipLoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
monitor = GapMonitor((images[500:], texts[500:]), model=model, every=20, log="gap.csv")

monitor.measure(0)
for step in range(1, 41):
    batch = torch.randperm(500)[:64]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images[batch], texts[batch])
        losses = loss(**output, output_dict=True)
        total = sum(losses.values())
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(100))
    monitor(step)

before, *_, after = (result.metrics["centroid_distance"] for _, result in monitor.history)
print(f"centroid distance: {before:.3f} before, {after:.3f} after {step} steps; all in gap.csv")
