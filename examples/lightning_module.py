"""ContrastiveLoss and GapMonitor in Lightning.

pip install 'geomkit[lightning]'; python examples/lightning_module.py
"""

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from geomkit import ContrastiveLoss, GapMonitor
from geomkit.monitoring import lightning_callback


class TwoEncoders(lightning.LightningModule):
    """Two encoders with a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.encode_image, self.encode_text = (
            nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32)) for _ in range(2)
        )
        self.log_scale = nn.Parameter(torch.tensor(20.0).log())
        self.loss = ContrastiveLoss("cua", global_batch=True, normalize=True)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch, and log its terms."""
        x, y = self.encode_image(batch[0]), self.encode_text(batch[1])
        terms = self.loss(x, y, self.log_scale.exp(), output_dict=True)
        self.log_dict(terms)
        return sum(terms.values())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer, of the temperature too."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


lightning.seed_everything(0, verbose=False)
shared = torch.randn(900, 16)  # what an image and its caption have in common
images, texts = (shared @ torch.randn(16, 64) + torch.randn(900, 64) for _ in range(2))
train = DataLoader(TensorDataset(images[:600], texts[:600]), 128, shuffle=True, drop_last=True)

model = TwoEncoders()
monitor = GapMonitor((images[600:], texts[600:]), model=model, every=50)
trainer = lightning.Trainer(
    max_steps=100,
    max_epochs=-1,
    accelerator="cpu",
    callbacks=[lightning_callback(monitor)],
    logger=CSVLogger("."),
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
monitor.measure(0)
trainer.fit(model, train)
before, *_, after = (result.metrics["centroid_distance"] for _, result in monitor.history)
print(f"centroid distance: {before:.3f} before, {after:.3f} after {trainer.global_step} steps")
print(f"all metrics during training: {trainer.logger.experiment.metrics_file_path}")
