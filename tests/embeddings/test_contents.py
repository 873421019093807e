"""What the arrays of a file stand for: names, forms, further modalities, whose each text is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import clouds
from safetensors.torch import save_file

from geomkit.embeddings.contents import held, interpret
from geomkit.embeddings.embeddings import read_embeddings
from geomkit.errors import GeomkitError
from geomkit.extraction.load import load_pairs, load_source
from geomkit.inspection import describe

x, y = clouds(12, 6)
order = np.random.default_rng(0).permutation(np.repeat(np.arange(12), 2))
IDS = np.array([f"{i:03d}.jpg" for i in range(12)])
FORMS: dict[str, Any] = {
    "list": lambda v: v.tolist(),
    "tuple": lambda v: tuple(v.tolist()),
    "array": lambda v: v,
    "tensor": lambda v: torch.from_numpy(v) if v.dtype.kind != "U" else v.tolist(),
    "tensors": lambda v: [torch.tensor(n) for n in v] if v.dtype.kind != "U" else v.tolist(),
}


def of(content: dict[str, Any], **columns: str) -> Any:
    return interpret({name: held(value) for name, value in content.items()}, columns or None)


@pytest.mark.parametrize("form", ["list", "tuple", "tensor", "tensors"])
def test_owners_in_a_torch_file_are_read_in_any_form(tmp_path: Path, form: str) -> None:
    make = FORMS[form]
    rows = {"image": torch.from_numpy(x), "text": torch.from_numpy(y[order])}
    owners: list[dict[str, Any]] = [
        {"image_index": make(order)},
        {"image_id": make(7 * np.arange(12)), "text_image_id": make(7 * order)},
        {"image_id": make(IDS), "text_image_id": make(IDS[order])},
        {"img_ids": make(IDS), "text_image_ids": make(IDS[order])},
        {"texts_image_index": make(order)},
    ]
    for k, keys in enumerate(owners):
        torch.save({**rows, **keys}, tmp_path / f"{k}.pt")
        found = read_embeddings(tmp_path / f"{k}.pt")
        np.testing.assert_array_equal(found.image_index, order, err_msg=str(keys))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"image_index": {0: 1}}, "image_index: expected an array, got dict"),
        ({"image_index": [0, [1, 2]]}, "image_index: expected an array, got list with rows of"),
        ({"image_index": [i + 0.5 for i in range(12)]}, "image_index: expected integers"),
        ({"image_index": [str(i) for i in range(12)]}, "image_index: expected integers"),
        ({"image_id": ["a", 1]}, "image_id: expected an array, got list with rows of unequal"),
        ({"image_id": [0.5] * 12}, "image_id: expected integers"),
        ({"image-index": [1], "imageIndex": [2]}, "each can be the image_index"),
        ({"image_ids": [1], "img_ids": [2]}, "image_ids, img_ids: each can be the image_id"),
    ],
)
def test_owners_that_cannot_be_read_are_refused(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(GeomkitError, match=says):
        of({"image": x, "text": y, **keys})


def test_sparse_and_float8_tensors_lists_and_arrays_are_rows(tmp_path: Path) -> None:
    eight = torch.from_numpy(x).to(torch.float8_e4m3fn)
    forms: list[tuple[Any, np.ndarray]] = [
        (torch.from_numpy(x).to_sparse(), x),
        (list(torch.from_numpy(x)), x),
        (x.tolist(), x),
        (x, x),
        (torch.from_numpy(x).requires_grad_(), x),
        (eight, eight.float().numpy()),
    ]
    for k, (rows, expected) in enumerate(forms):
        if not isinstance(rows, np.ndarray):  # arrays need more of a pickle than torch allows
            torch.save({"image": rows, "text": torch.from_numpy(y)}, tmp_path / f"{k}.pt")
            found = read_embeddings(tmp_path / f"{k}.pt").image
        else:
            found = of({"image": rows, "text": y}).image[0].read(0, 12)
        unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(found, unit, atol=1e-6)
    with pytest.raises(GeomkitError, match="image: expected an array, got list with rows of"):
        of({"image": [[1.0, 2.0], [1.0]], "text": y})


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("image_features", "text_features"),
        ("image_embeds", "text_embeds"),
        ("image_embedding", "text_embedding"),
        ("img_emb", "txt_emb"),
        ("Images", "captions"),
        ("imageEmbeddings", "textEmbeddings"),
        ("embeddings/image", "embeddings/text"),
    ],
)
def test_usual_names_are_known_and_said(image: str, text: str) -> None:
    found = of({text: y, image: x, "logit_scale": 4.6, "labels": list(range(12))})
    np.testing.assert_array_equal(found.image[0].read(0, 12), x)
    np.testing.assert_array_equal(found.text[0].read(0, 12), y)
    assert f"{image} is read as image" in found.notes
    assert "not used: 'logit_scale', 'labels'" in found.notes


def test_names_that_are_not_known_are_chosen_or_refused(cli, refused, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", arr_0=x, arr_1=y)
    refused("gap", "e.npz", says=("arr_0 (12, 6), arr_1 (12, 6)", "--columns image=NAME,text"))
    refused("gap", "e.npz", "--columns", "image=arr_0,text=no", says=("no 'no' for text",))
    refused("gap", "e.npz", "--columns", "image", says=("expected image=NAME,text=NAME",))
    outcome = cli("gap", "e.npz", "--columns", "image=arr_1,text=arr_0", "--json")
    result = json.loads(outcome.out)["results"][0]
    assert outcome.status == 0 and result["modalities"] == ["image", "text"]
    assert load_source(tmp_path / "e.npz", columns={"image": "arr_1", "text": "arr_0"})[
        0
    ].image == pytest.approx(y)
    with pytest.raises(GeomkitError, match="img_emb, img_feats: each can be the image"):
        of({"img_emb": x, "img_feats": x, "text": y})


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ((10 * x).astype(np.int64), "image: expected floating-point rows, got int64"),
        ([[1.0], [1.0, 2.0]], "image_features: expected an array, got list with rows of uneq"),
        ({"a": 1}, "image_features: expected an array, got dict"),
    ],
)
def test_rows_by_another_name_that_are_unfit_are_not_left_out(
    tmp_path: Path, rows: Any, says: str
) -> None:
    kind = torch.from_numpy if isinstance(rows, np.ndarray) else lambda rows: rows
    torch.save({"image_features": kind(rows), "text": torch.from_numpy(y)}, tmp_path / "e.pt")
    with pytest.raises(GeomkitError, match=says):
        load_pairs(tmp_path / "e.pt")
    one, _ = load_pairs(tmp_path / "e.pt", columns={"text": "text"})
    assert list(one[0].rows) == ["text"]  # type: ignore[union-attr]


def test_captions_are_no_rows(tmp_path: Path) -> None:
    found = of({"image_features": x, "captions": ["a"] * 12})
    assert found.modalities == ("image", "") and "not used: 'captions'" in found.notes


def test_the_exact_name_goes_first(tmp_path: Path) -> None:
    found = of({"image_features": y, "image": x, "text": y})
    np.testing.assert_array_equal(found.image[0].read(0, 12), x)
    assert found.notes == ("not used: 'image_features'",)
    pixels = of({"image": np.zeros((12, 3, 8, 8), np.uint8), "image_features": x, "text": y})
    np.testing.assert_array_equal(pixels.image[0].read(0, 12), x)


def test_every_pair_of_the_modalities_of_one_file(cli, tmp_path: Path) -> None:
    torch.save(
        {"image": torch.from_numpy(x), "text": torch.from_numpy(y[order]),
         "audio": torch.from_numpy(y), "image_index": order.tolist()},
        tmp_path / "e.pt",
    )  # fmt: skip
    outcome = cli("gap", "e.pt", "--metrics", "paired_cosine", "--json")
    results = {tuple(r["modalities"]): r for r in json.loads(outcome.out)["results"]}
    assert list(results) == [("image", "text"), ("image", "audio"), ("audio", "text")]
    assert results["audio", "text"]["metrics"]["paired_cosine"] == pytest.approx(1)
    pairs, _ = load_pairs(tmp_path / "e.pt")
    assert [e.m for e in pairs] == [24, 12, 24]
    first, _ = load_source(tmp_path / "e.pt")
    assert "of image–audio and audio–text nothing is used here" in first.meta["notes"]
    assert describe(str(tmp_path / "e.pt"))["modalities"] == ["image", "text", "audio"]


def test_texts_of_each_image_in_one_array(cli, tmp_path: Path) -> None:
    texts = np.stack([y, y[::-1], y], axis=1)
    np.savez(tmp_path / "e.npz", image=x, text=texts)
    found = read_embeddings(tmp_path / "e.npz")
    np.testing.assert_array_equal(found.image_index, np.repeat(np.arange(12), 3))
    np.testing.assert_allclose(found.text, texts.reshape(36, 6), rtol=1e-14)
    note = "text: shape (12, 3, 6) is read as 3 rows for each image"
    outcome = cli("gap", "e.npz", "--metrics", "alignment", "--json")
    assert note in outcome.err
    assert json.loads(outcome.out)["results"][0]["meta"]["notes"] == [note]
    for wrong in (texts.transpose(1, 0, 2), texts[:, :, :4]):
        with pytest.raises(GeomkitError, match=r"text: expected an \(n, d\) matrix"):
            of({"image": x, "text": wrong})
    with pytest.raises(GeomkitError, match="and image_index; give one of them"):
        of({"image": x, "text": texts, "image_index": list(range(12))})
    assert of({"image": x[:, None], "text": y[:, None]}).text[0].shape == (12, 6)


def test_quantised_rows_are_measured_and_said(cli, tmp_path: Path) -> None:
    small = {"image": np.round(127 * x).astype(np.int8), "text": np.round(127 * y).astype(np.int8)}
    np.savez(tmp_path / "e.npz", **small)
    found = read_embeddings(tmp_path / "e.npz")
    wide = small["image"].astype(np.float32)
    np.testing.assert_allclose(
        found.image, wide / np.linalg.norm(wide, axis=1, keepdims=True), rtol=1e-6
    )
    outcome = cli("gap", "e.npz", "--metrics", "alignment")
    assert ", int8" in outcome.out and "image: int8 numbers, used as" in outcome.err


def test_a_dictionary_in_an_npy_is_refused_with_the_way_to_save_it(refused, tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", {"image": x, "text": y})  # type: ignore[arg-type]
    refused("gap", "e.npy", says=("e.npy", "a dictionary", "np.savez('e.npz', **dictionary)"))


def test_torch_files_with_a_dictionary_a_row_or_inside_another(tmp_path: Path) -> None:
    tensors = {"image": torch.from_numpy(x), "text": torch.from_numpy(y)}
    rows = [{name: rows[i] for name, rows in tensors.items()} for i in range(12)]
    torch.save(rows, tmp_path / "rows.pt")
    torch.save({"embeddings": tensors, "model": "ViT-B-32"}, tmp_path / "inner.pt")
    for name in ("rows.pt", "inner.pt"):
        np.testing.assert_allclose(read_embeddings(tmp_path / name).text, y, rtol=1e-12)
    assert read_embeddings(tmp_path / "inner.pt").meta["notes"] == ["not used: 'model'"]
    del rows[3]["text"]
    torch.save(rows, tmp_path / "rows.pt")
    with pytest.raises(GeomkitError, match="a torch file that holds a list"):
        load_pairs(tmp_path / "rows.pt")


def test_a_torch_file_of_something_else(refused, tmp_path: Path) -> None:
    torch.save("text", tmp_path / "t.pt")
    refused("gap", "t.pt", says=("a torch file that holds a str", "'image' and 'text'"))
    torch.save({"encoder.weight": torch.ones(3, 3)}, tmp_path / "w.pt")
    refused("gap", "w.pt", says=("a torch file that holds a dictionary", "open_clip:NAME/w.pt"))


def test_further_arrays_that_are_no_rows_of_the_images_are_named() -> None:
    frames = np.zeros((12, 7, 5), np.float32)
    found = of({"image": x, "text": y, "video": frames, "audio": x[:5], "box": x[:, :4]})
    assert list(found.others) == ["box"]
    assert found.notes == ("not used: 'video', 'audio'",)
    with pytest.raises(GeomkitError, match=r"video: expected an \(n, d\) matrix"):
        of({"image": x, "text": y, "video": frames}, image="image", text="text", video="video")


def test_a_tuple_of_two_matrices_is_images_and_texts(tmp_path: Path, cli, refused) -> None:
    torch.save((torch.tensor(x), torch.tensor(y)), path := tmp_path / "e.pt")
    found = read_embeddings(path)
    np.testing.assert_allclose(found.text, y, rtol=1e-14)
    note = "of a tuple of two matrices the first is read as image, the second as text"
    assert found.meta["notes"] == [note]
    outcome = cli("gap", path, "--metrics", "centroid_distance", "--json")
    assert note in outcome.err and note in json.loads(outcome.out)["results"][0]["meta"]["notes"]
    parts = torch.tensor(x), torch.tensor(y[:5])
    for content in (parts, [torch.tensor(x)] * 2, (*parts, torch.arange(3)), [torch.tensor(x)] * 9):
        torch.save(content, path)
        refused("gap", path, says=("without names, of (", "{'image': x, 'text': y"))


def test_what_else_files_of_one_modality_hold_is_said(tmp_path: Path, cli) -> None:
    np.savez(tmp_path / "a.npz", features=x, image_paths=np.array(["p"] * len(x)))
    np.savez(tmp_path / "b.npz", text_emb=y.astype(np.float16), other=x)
    words = ("gap", "--image", "a.npz", "--text", "b.npz", "--metrics", "centroid_distance")
    outcome = cli(*words, "--json")
    assert outcome.status == 0, outcome.err
    notes = ["a.npz: not used: 'image_paths'", "b.npz: not used: 'other'"]
    assert json.loads(outcome.out)["results"][0]["meta"]["notes"] == notes
    assert all(note in outcome.err for note in notes)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_numbers_of_eight_bits_in_safetensors(tmp_path: Path, kind: str) -> None:
    eight = torch.from_numpy(x).to(getattr(torch, kind))
    tensors = {"image": eight, "text": torch.from_numpy(y)}
    save_file(tensors, path := tmp_path / "e.safetensors")
    found = read_embeddings(path)
    expected = torch.nn.functional.normalize(eight.float()).numpy()
    np.testing.assert_allclose(found.image, expected, atol=1e-6)
    assert found.meta["notes"] == [f"image: {kind} numbers, read as float32"]


@pytest.mark.parametrize("name", ["text_ids", "caption_id", "txt2img", "caption_to_image_ids"])
def test_ids_of_texts_that_are_ids_of_images_are_read(name: str) -> None:
    ids = order if name == "txt2img" else IDS[order]
    found = of({"image": x, "text": y[order], "image_ids": IDS, name: ids})
    np.testing.assert_array_equal(found.image_index, order)
    own = "image_index" if name == "txt2img" else "text_image_id"
    assert f"{name} is read as {own}" in found.notes


def test_ids_of_the_texts_themselves_are_no_owners() -> None:
    tokens = np.zeros((12, 5), int)
    for ids in (np.arange(12) + 100, tokens):
        found = of({"image": x, "text": y, "image_ids": np.arange(12), "text_ids": ids})
        assert found.image_index is None and "not used: 'text_ids'" in found.notes


@pytest.mark.parametrize("name", ["img2txt", "image_to_captions", "image2text_ids"])
def test_texts_listed_by_image_are_refused(name: str) -> None:
    for value in ([[i] for i in range(12)], {i: [i] for i in range(12)}):
        with pytest.raises(GeomkitError, match=f"{name}: lists the texts of each image; give"):
            of({"image": x, "text": y, name: value})
    content = {"image": x, "text": y, name: [[i] for i in range(12)], "image_index": np.arange(12)}
    assert f"not used: '{name}'" in of(content).notes


def test_files_of_one_modality_must_have_the_same_ids(tmp_path: Path, refused) -> None:
    np.savez(tmp_path / "a.npz", image=x, ids=IDS)
    for own in ("keys", "text_ids"):
        np.savez(tmp_path / "b.npz", **{"text": y, own: IDS[::-1]})
        says = ("row 0 has the id 011.jpg, but 000.jpg in a.npz",)
        refused("gap", "--image", "a.npz", "--text", "b.npz", says=says)


def test_images_that_repeat_are_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", image=np.repeat(x, 2, axis=0), text=np.concatenate([y, -y]))
    (note,) = read_embeddings(tmp_path / "e.npz").meta["notes"]
    assert note == "image: 12 of 24 rows repeat another, and count as images of their own"
    np.savez(tmp_path / "e.npz", image=np.eye(12), text=y)
    assert "notes" not in read_embeddings(tmp_path / "e.npz").meta


def test_roles_are_chosen_in_any_usual_spelling() -> None:
    content = {"a": x, "b": y[order], "c": order}
    found = of(content, TEXT="b", Image="a", img_idx="c")
    assert found.modalities == ("image", "text")
    np.testing.assert_array_equal(found.image_index, order)
    with pytest.raises(GeomkitError, match="columns: image is named twice"):
        of(content, image="a", Image="b")
