"""ContrastiveLoss and GapMonitor in transformers' Trainer.

pip install 'geomkit[hf]' accelerate; python examples/transformers_trainer.py

A small CLIPModel on OpenMoji's images and names; CLIPModel.from_pretrained and its processor take
their place.
"""

import open_clip
import torch
from transformers import CLIPConfig, CLIPModel, Trainer, TrainingArguments

from geomkit import ContrastiveLoss, GapMonitor
from geomkit.data import load_data
from geomkit.monitoring import transformers_callback

torch.manual_seed(0)
pairs = load_data("openmoji", n=600)
images = torch.from_numpy(pairs.pixels()).permute(0, 3, 1, 2) / 127.5 - 1
tokens = open_clip.SimpleTokenizer(context_length=16)(pairs.names)  # the tokenizer of CLIP
rows = [{"pixel_values": i, "input_ids": t} for i, t in zip(images, tokens, strict=True)]
small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
small |= {"num_attention_heads": 2, "eos_token_id": 49407, "max_position_embeddings": 16}
model = CLIPModel(
    CLIPConfig(
        text_config=small,
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
)
loss = ContrastiveLoss("cua")


class ContrastiveTrainer(Trainer):
    """A Trainer with geomkit's loss; its rows are normalised by CLIPModel."""

    def compute_loss(self, model, inputs, return_outputs=False, **_):
        """Return the loss of a batch."""
        output = model(**inputs)
        scale = self.accelerator.unwrap_model(model).logit_scale.exp()
        value = loss(output.image_embeds, output.text_embeds, scale)
        return (value, output) if return_outputs else value


trainer = ContrastiveTrainer(
    model,
    TrainingArguments(
        "trainer", max_steps=40, per_device_train_batch_size=64, learning_rate=1e-3, use_cpu=True,
        logging_steps=20, save_strategy="no", report_to="none", disable_tqdm=True,
    ),
    train_dataset=rows[:500],
)  # fmt: skip
held_out = torch.utils.data.DataLoader(rows[500:], 50)
monitor = GapMonitor(held_out, model=model, every=20)
trainer.add_callback(transformers_callback(monitor, trainer))
monitor.measure(0)
trainer.train()
before, *_, after = (result.metrics["centroid_distance"] for _, result in monitor.history)
print(
    f"centroid distance: {before:.3f} before, {after:.3f} after {trainer.state.global_step} steps"
)
