"""Small models with random weights, written by the libraries whose formats they are."""

from __future__ import annotations

import json
import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

WIDTH = 64
SIZE = 32
CAPTIONS = ["a dog", "", "Cats & 🦊, צהריים טובים", "word " * 120]


def pictures(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


@cache
def clip_config() -> dict[str, Any]:
    return {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"layers": 2, "width": WIDTH, "patch_size": 16, "image_size": SIZE},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": WIDTH,
            "heads": 1,
            "layers": 2,
        },
    }


def lively(model: nn.Module) -> nn.Module:
    """Biases and norms off their 0 and 1, so that none can be dropped without notice."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 and len(parameter) > 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        for buffer in model.buffers():
            if buffer.dtype == torch.float32 and buffer.ndim == 1:
                buffer.add_(0.2 * torch.rand(buffer.shape, generator=generator))
    return model.eval()


@cache
def open_clip_model() -> Any:
    from open_clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return lively(CLIP(**clip_config()))


@cache
def resnet() -> Any:
    from open_clip.model import CLIP

    vision = {"layers": [1, 1, 1, 1], "width": 8, "image_size": SIZE}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return lively(CLIP(**{**clip_config(), "vision_cfg": vision}))


def byte_pairs(folder: Path) -> None:
    """CLIP's vocabulary as transformers' files hold it, from open_clip's copy."""
    from open_clip.tokenizer import SimpleTokenizer

    own = SimpleTokenizer()
    words = {word: i for word, i in own.encoder.items() if i < 49406}
    words |= {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    merges = sorted(own.bpe_ranks, key=own.bpe_ranks.__getitem__)
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    lines = "\n".join(map(" ".join, merges))
    (folder / "merges.txt").write_text(f"#version: 0.2\n{lines}\n", encoding="utf-8")


def hf_clip(folder: Path, *, seed: int = 0, **options: Any) -> Any:
    """transformers' CLIPModel, saved with its processor and CLIP's vocabulary."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    shared = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**shared, "intermediate_size": 72, **options},
        vision_config={
            **shared,
            "intermediate_size": 100,
            "image_size": SIZE,
            "patch_size": 16,
            **{k: v for k, v in options.items() if k in ("hidden_act", "layer_norm_eps")},
        },
        projection_dim=24,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = lively(CLIPModel(config))
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE).save_pretrained(folder)
    byte_pairs(folder)
    return model


def hf_siglip(folder: Path) -> tuple[Any, Any]:
    """transformers' SiglipModel, saved with its processor and a tokenizer of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        SiglipConfig,
        SiglipImageProcessor,
        SiglipModel,
    )

    shared = {
        "hidden_size": 32,
        "intermediate_size": 100,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    special = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    config = SiglipConfig(
        text_config={**shared, "vocab_size": 300, "max_position_embeddings": 64, **special},
        vision_config={**shared, "image_size": SIZE, "patch_size": 16},
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model: Any = lively(SiglipModel(config))
    with torch.no_grad():
        model.logit_bias.fill_(-7.5)
        model.logit_scale.fill_(2.25)
    model.save_pretrained(folder)
    SiglipImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    bytes_ = pre_tokenizers.ByteLevel
    pieces = Tokenizer(models.BPE(unk_token="<unk>"))
    pieces.pre_tokenizer = bytes_(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=bytes_.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator(["a dog and a cat"], trainer)
    pieces.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def paper(path: Path, *, swapped: bool = False) -> tuple[Any, Any]:
    """Two towers of transformers' under the names the paper's code stores them by."""
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    shared = {
        "hidden_size": WIDTH,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "projection_dim": 24,
    }
    with torch.random.fork_rng():
        torch.manual_seed(3)
        image = lively(
            CLIPVisionModelWithProjection(
                CLIPVisionConfig(**shared, image_size=SIZE, patch_size=16)
            )
        )
        text = lively(CLIPTextModelWithProjection(CLIPTextConfig(**shared)))
    whole = nn.Module()
    whole.encoder1, whole.encoder2 = nn.Module(), nn.Module()
    first, second = (
        (whole.encoder2, whole.encoder1) if swapped else (whole.encoder1, whole.encoder2)
    )
    first.image_model, second.text_model = image, text
    whole.logit_scale = nn.Parameter(torch.tensor(np.log(1 / 0.02)))
    whole.intra_modality_logit_scale = nn.Parameter(torch.tensor(np.log(100.0)))
    content = {
        "epoch": 4,
        "model_state_dict": whole.state_dict(),
        "dataloader_enumerator_index": 30,
    }
    torch.save(content, path)
    return image, text


def script(model: Any, path: Path, *, traced: bool = True) -> None:
    """A model compiled and saved as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have it compiled otherwise
        if traced:
            from open_clip import tokenize

            inputs = {"forward": (pictures(2), tokenize(["a", "b"]))}
            compiled = torch.jit.trace_module(model, inputs, check_trace=False)
        else:
            compiled = torch.jit.script(model)
        torch.jit.save(compiled, path)


def run_script(path: Path) -> dict[str, torch.Tensor]:
    """The state dict that torch's own loader gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(path).state_dict()


def copy(source: Path, target: Path) -> Path:
    """A folder to be damaged."""
    shutil.copytree(source, target)
    return target
