"""Small data sets on disk whose pictures can be told apart after any resizing."""

from __future__ import annotations

import io
import json
from pathlib import Path

from PIL import Image

from geomkit.data import PairData


def picture(number: int, kind: str = "PNG") -> bytes:
    """A picture in a colour of its own, exact after any resizing."""
    out = io.BytesIO()
    colour = (number % 256, number // 256, 7)
    Image.new("RGB", (20 + number % 5, 16), colour).save(out, kind)
    return out.getvalue()


def numbers(data: PairData) -> list[int]:
    """Which pictures these are, by their colours."""
    middle = data.pixels()[:, 4, 4].astype(int)
    return (middle[:, 0] + 256 * middle[:, 1]).tolist()


def write(file: Path, content: bytes | str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def annotations(images: list[tuple[int, str]], *, per_image: int = 2) -> str:
    """COCO's captions, the annotations in another order than their ids."""
    entries = [
        {"id": 10 * id_ + k, "image_id": id_, "caption": f"{k or 'first'} of {id_} \n"}
        for id_, _ in images
        for k in range(per_image)
    ]
    return json.dumps(
        {
            "images": [{"id": id_, "file_name": name} for id_, name in images],
            "annotations": entries[::-1],
        }
    )


def layout(root: Path, year: str, counts: dict[str, int], *, name: str = "{:012d}.jpg") -> Path:
    """COCO in small: pictures and captions for each split."""
    number = 0
    for split, count in counts.items():
        folder = f"{split}{year}"
        images = []
        for _ in range(count):
            number += 1
            images.append((number, name.format(number, folder=folder)))
            write(root / folder / images[-1][1], picture(number))
        write(root / "annotations" / f"captions_{folder}.json", annotations(images))
    return root
