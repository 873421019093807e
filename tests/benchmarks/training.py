"""Training and extraction beside the bare model and open_clip's own loop: one table.

    python tests/benchmarks/training.py --out reports/benchmarks/training.md

*Bare* is the model's forward, backward and optimizer step on one batch that is ready, with no loss
but the sum of its outputs. *Ours* is the training loop as the command runs it: batches made
as training goes, loss, clipping of the gradient, events, the finite check; its steps are timed from
the first to the last. *open_clip* is ``open_clip_train.train.train_one_epoch`` with the same
architecture, optimizer and clipping, on batches that are ready: whatever its loader would cost is
left out. It runs every caption at the full context, ours cuts a batch to its longest caption, and
so does the bare step. The three take turns, and medians over the rounds are compared. Extraction is
``encode`` from JPEG files, which workers decode on the same cores if there is no
GPU, and from the cache of decoded pictures, beside the encoder alone on the same pictures, in
memory before the clock starts.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from geomkit._core.runtime import autocast, resolve_device, resolve_precision
from geomkit.data import PairData, load_data
from geomkit.extraction.encode import encode
from geomkit.models.architectures import OWN_CONFIGS, model_config
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.towers import open_clip_model
from geomkit.models.two_encoder import TwoEncoder, build
from geomkit.training.config import configure
from geomkit.training.loop import train
from geomkit.training.step import optimizer_for


class Bench:
    """One model, batch and device; each method returns seconds a step."""

    def __init__(self, model: str, batch: int, steps: int, device: str) -> None:
        self.config = configure(
            model=model, dim=512 if model != "tiny" else 128, recipe="standard",
            batch_size=batch, steps=steps, pairs=min(2 * batch, 1400), eval_split="train",
            eval_every=10**6, precision=resolve_precision("auto", device), captions="first",
        )  # fmt: skip
        self.device, self.steps = device, steps
        self.architecture = model_config(model, dim=self.config.dim)
        self.preprocess = Preprocess.for_model(self.architecture)
        data = load_data("openmoji", split="train", preprocess=self.preprocess, n=self.config.pairs)
        tokenizer = Tokenizer.for_model(self.architecture)
        if model in OWN_CONFIGS:  # as training does
            tokenizer = tokenizer.for_captions(data.names)
        self.known = tokenizer.known
        self.tokens = tokenizer.encode(data.names)
        self.uint8 = torch.from_numpy(data.pixels(slice(0, batch)))

    def model(self) -> TwoEncoder:
        torch.manual_seed(0)
        model = build(self.architecture, temperature=0.05)
        model.keep_tokens(self.known)
        return model.to(self.device).train()

    def clock(self) -> float:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    def bare(self) -> float:
        model = self.model()
        optimizer = optimizer_for(model, self.config)
        batch = self.config.batch_size
        images = self.preprocess.to_pixels(self.uint8.to(self.device))
        words = model.trim(self.tokens[:batch]).to(self.device)
        for step in range(self.steps + 1):
            if step == 1:
                start = self.clock()
            optimizer.zero_grad(set_to_none=True)
            with autocast(self.device, self.config.precision):
                x, y, scale = model(images, words)
            (x.sum() + y.sum() + scale).backward()
            optimizer.step()
        return (self.clock() - start) / self.steps

    def ours(self) -> float:
        times: list[float] = []

        def watch(event) -> None:
            if event.kind == "step" and event.step in (1, self.steps + 1):
                times.append(self.clock())

        config = self.config.__class__(**{**vars(self.config), "steps": self.steps + 1})
        with tempfile.TemporaryDirectory() as folder:
            train(config, Path(folder) / "c.pt", device=self.device, watch=watch)
        return (times[1] - times[0]) / self.steps

    def open_clip(self) -> float:
        from open_clip.loss import ClipLoss
        from open_clip_train.train import train_one_epoch

        text = {**self.architecture["text_cfg"], "vocab_size": len(self.known)}
        torch.manual_seed(0)
        clip: Any = open_clip_model(
            {**self.architecture, "text_cfg": text}, init_logit_scale=math.log(20.0)
        )  # as it comes, with its own attention
        clip.to(self.device).train()
        optimizer = optimizer_for(clip, self.config)
        clip.output_dict = True
        batch = self.config.batch_size
        images = self.preprocess.to_pixels(self.uint8)
        if self.device.startswith("cuda"):
            images = images.pin_memory()
        times: list[float] = []
        bench = self

        class Loader:
            num_batches = self.steps + 1
            num_samples = num_batches * batch

            def __iter__(self):
                for step in range(self.num_batches):
                    if step == 1:
                        times.append(bench.clock())
                    yield images, bench.tokens[:batch]

        args = SimpleNamespace(
            device=self.device, distill=False, accum_freq=1, skip_scheduler=True, horovod=False,
            precision="amp_bf16" if self.config.precision == "bf16" else "fp32",
            grad_clip_norm=self.config.clip_norm, log_every_n_steps=100, batch_size=batch,
            world_size=1, rank=0, local_rank=0, log_local=False, wandb=False,
        )  # fmt: skip
        data = {"train": SimpleNamespace(dataloader=Loader(), set_epoch=lambda epoch: None)}
        logging.disable(logging.INFO)
        train_one_epoch(clip, data, ClipLoss(), 0, optimizer, None, None, None, args)
        return (self.clock() - times[0]) / self.steps


def in_turns(rounds: int, **measures: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds by name; a first round warms up and is left out: a cool processor runs faster."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds + 1):
        for name, measure in measures.items():
            found[name].append(measure())
    return {name: values[1:] for name, values in found.items()}


def median(found: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in found.items()}


def step_rows(model: str, batch: int, steps: int, rounds: int, device: str) -> list[str]:
    bench = Bench(model, batch, steps, device)
    bench.bare()  # warm
    t = median(in_turns(rounds, bare=bench.bare, ours=bench.ours, open_clip=bench.open_clip))
    ms = {name: f"{1000 * value:,.0f} ms" for name, value in t.items()}
    print(model, batch, t, flush=True)
    what = f"{model}, {bench.preprocess.size} px, batch {batch}, {bench.config.precision}"
    return [
        f"| {what} | {ms['bare']} | {ms['ours']} | {t['ours'] / t['bare']:.3f} | "
        f"{ms['open_clip']} | {t['ours'] / t['open_clip']:.3f} |"
    ]


def pictures(folder: Path, count: int) -> None:
    """JPEGs of a photograph's size and about its weight: smooth colour, edges, some grain."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(count):
        small = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        large = np.asarray(Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC))
        grain = rng.normal(0, 12, large.shape)
        pixels = np.clip(large + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=85)
        (folder / f"{number:04d}.txt").write_text(f"picture number {number}")


def extraction_row(device: str, count: int, rounds: int) -> str:
    config = model_config("ViT-B-32")
    preprocess = Preprocess.for_model(config)
    model = build(config).to(device).eval()
    precision = resolve_precision("auto", device)
    tokens = Tokenizer.for_model(config).encode(["x"] * 2)
    with tempfile.TemporaryDirectory() as name:
        pictures(Path(name), count)
        data = load_data(f"imagefolder:{name}", split="all", preprocess=preprocess)
        size = sum(file.stat().st_size for file in Path(name).glob("*.jpg")) / count
        ready = torch.from_numpy(data.pixels())

        def seconds(run: Callable[[], object]) -> float:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start

        @torch.no_grad()
        def bare() -> float:
            def run() -> None:
                with autocast(device, precision):
                    rows = [
                        model.encode_image(preprocess.to_pixels(part.to(device)))
                        for part in ready.split(32)
                    ]
                torch.cat(rows).cpu()

            return seconds(run)

        def from_files(pictures: PairData) -> float:
            return seconds(
                lambda: encode(
                    model, pictures, tokens, preprocess,
                    device=device, precision=precision, batch_size=32,
                )
            )  # fmt: skip

        cached = load_data(
            f"imagefolder:{name}", split="all", preprocess=preprocess, cache_images=True
        )
        bare()
        t = median(
            in_turns(
                rounds, bare=bare, files=lambda: from_files(data), cache=lambda: from_files(cached)
            )
        )
    print("extraction", t, flush=True)
    rates = [f"{count / t[name]:.1f} images/s" for name in ("bare", "files", "cache")]
    return (
        f"| ViT-B-32, 224 px, {count} JPEGs of 640 × 480 ({size / 1000:.0f} kB), {precision} | "
        f"{rates[0]} | {rates[1]}: {t['bare'] / t['files']:.3f} | "
        f"{rates[2]}: {t['bare'] / t['cache']:.3f} |"
    )


def cuda_rows(batch: int = 1024) -> list[str]:
    """Images a second and the share of the device's own rate of bf16 matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    bench = Bench("ViT-B-32", batch, 10, "cuda")
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    start = bench.clock()
    for _ in range(20):
        a @ a
    rate = 20 * 2 * 8192**3 / (bench.clock() - start)
    model = bench.model()
    images = bench.preprocess.to_pixels(bench.uint8[:8].cuda())
    rows = []
    for name, words in (("ours", model.trim(bench.tokens[:batch])), ("open_clip", bench.tokens)):
        with FlopCounterMode(display=False) as counter:
            model(images, words[:8].cuda())
        flops = 3 * counter.get_total_flops() / 8
        seconds = statistics.median(getattr(bench, name)() for _ in range(3))
        per_second = batch / seconds
        rows.append(
            f"| {name} | {per_second:,.0f} | {per_second * flops / rate:.1%} of "
            f"{rate / 1e12:.0f} TFLOP/s |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["GEOMKIT_CACHE"] = tempfile.mkdtemp()
    device = resolve_device(options.device)
    cuda = device.startswith("cuda")
    name = torch.cuda.get_device_name() if cuda else f"{platform.machine()}, {os.cpu_count()} cores"
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("torch", "open_clip_torch"))
    lines = [
        "# Training and extraction, measured",
        "",
        "Made by `python tests/benchmarks/training.py --out FILE`, whose head says what",
        f"is compared. Medians of {options.rounds} rounds in turns, after one to warm up.",
        "",
        f"{name}, Python {platform.python_version()}, {versions}.",
        "",
        "## A training step",
        "",
        "| model and batch | bare | ours | ours/bare | open_clip's loop | ours/open_clip |",
        "|---|---|---|---|---|---|",
    ]
    if cuda:
        lines += step_rows("ViT-B-32", 1024, 10, options.rounds, device)
    lines += step_rows("tiny", 64, 60, options.rounds, device)
    if not cuda:
        lines += step_rows("ViT-B-32", 16, 3, options.rounds, device)
    lines += [
        "",
        "## Extraction",
        "",
        "| what | encoder alone, pictures in memory | from files | with `--cache-images` |",
        "|---|---|---|---|",
        extraction_row(device, 4096 if cuda else 320, options.rounds),
    ]
    if cuda:
        lines += [
            "",
            "## ViT-B-32 at batch 1,024, bf16",
            "",
            "| loop | images/s | share of the measured bf16 matrix rate |",
            "|---|---|---|",
            *cuda_rows(),
        ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
