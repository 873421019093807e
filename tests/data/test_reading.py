"""Random tables, tars and folders, with faults: equal to what was written, or refused by name.

``GEOMKIT_EXAMPLES`` sets the number of examples.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import numbers, picture, write
from test_tars import shard

from geomkit.data import load_data
from geomkit.errors import GeomkitError

EXAMPLES = settings(
    max_examples=int(os.environ.get("GEOMKIT_EXAMPLES", "60")),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
PICTURES = [picture(i) for i in range(8)]
Pairs = list[list[str]]

texts = st.text(
    st.sampled_from("abcé \"'\t,;|\n\r\u2028漢🐕") | st.characters(exclude_categories=["Cs"]),
    max_size=12,
)
lines = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"]), min_size=1, max_size=12
)
names = st.text("abc. -é", min_size=1, max_size=8).filter(lambda n: n == n.strip(" .") and n)


def pairs(text: st.SearchStrategy[str]) -> st.SearchStrategy[Pairs]:
    """Captions of some images."""
    return st.lists(st.lists(text, min_size=1, max_size=3), min_size=1, max_size=8)


@given(data=st.data())
@EXAMPLES
def test_tables(data: st.DataObject) -> None:
    mark = data.draw(st.sampled_from([",", "\t", ";", "|"]))
    suffix = data.draw(st.sampled_from([".csv", ".tsv", ".txt"]))
    quoted = data.draw(st.booleans())
    # Without quotes a cell holds neither the separator nor an end of a line.
    plain = texts.map(lambda t: "".join(c for c in t if c not in mark + "\n\r"))
    if not quoted and mark != "\t":
        plain = plain.map(lambda t: t.replace('"', ""))
    content = data.draw(pairs(texts if quoted else plain))
    fault = data.draw(st.sampled_from(["", "", "short", "long", "byte", "blank"]))
    written = {str(i): captions for i, captions in enumerate(content)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = [[f"{i}.png", text] for i, captions in written.items() for text in captions]
        for i in written:
            write(folder / f"{i}.png", PICTURES[int(i)])
        out = io.StringIO(newline="")
        how = csv.QUOTE_ALL if quoted else csv.QUOTE_NONE
        writer = csv.writer(out, delimiter=mark, quoting=how, quotechar='"' if quoted else None)
        writer.writerows([["filepath", "title"], *rows])
        raw = out.getvalue().encode()
        if data.draw(st.booleans()):
            raw = b"\xef\xbb\xbf" + raw
        extra = {"short": b"0.png", "long": mark.join(["0.png", "x", "y"]).encode(),
                 "byte": b"0.png" + mark.encode() + b"\xe9", "blank": b""}  # fmt: skip
        if fault:
            raw += extra[fault] + b"\r\n"
        file = write(folder / f"t{suffix}", raw)
        try:
            found = load_data(f"csv:{file},max_bad=0.5", split="all")
        except GeomkitError as error:
            assert fault in ("short", "long", "byte"), error
            assert "row " in str(error) and "\n" not in str(error)
            return
        assert dict(zip(numbers(found), map(list, found.captions), strict=True)) == {
            int(i): captions for i, captions in written.items()
        }, found.reading
        assert bool(found.left_out) == (fault in ("short", "long", "byte"))


@given(content=pairs(texts), pictures=st.booleans(), lists=st.booleans())
@EXAMPLES
def test_parquet(content: Pairs, pictures: bool, lists: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        captions = content if lists else [group[0] for group in content]
        images = PICTURES[: len(content)]
        for i, image in enumerate(images):
            write(folder / f"{i}.png", image)
        named = [f"{i}.png" for i in range(len(images))]
        pq.write_table(
            pa.table({"filepath": images if pictures else named, "title": captions}),
            folder / "t.parquet", row_group_size=3,
        )  # fmt: skip
        data = load_data(f"csv:{folder}/t.parquet", split="all")
        expected = content if lists else [group[:1] for group in content]
        assert numbers(data) == list(range(len(images)))
        assert [list(group) for group in data.captions] == expected


@given(data=st.data(), content=pairs(lines))
@EXAMPLES
def test_tars(data: st.DataObject, content: Pairs) -> None:
    keys = data.draw(st.lists(names, min_size=len(content), max_size=len(content), unique=True))
    members: dict[str, bytes | str] = {}
    written: dict[str, list[str]] = {}
    faults = []
    for i, (key, captions) in enumerate(zip(keys, content, strict=True)):
        fault = data.draw(st.sampled_from(["", "", "", "no image", "no caption", "byte", "json"]))
        faults.append(fault)
        if fault != "no image":
            members[f"{key}.png"] = PICTURES[i]
        if fault == "byte":
            members[f"{key}.txt"] = b"\xe9"
        elif fault == "json":
            members[f"{key}.json"] = "{"
        elif fault != "no caption":
            kind = data.draw(st.sampled_from(["txt", "json"]))
            as_json = json.dumps({"caption": captions if len(captions) > 1 else captions[0]})
            members[f"{key}.{kind}"] = "\n".join(captions) if kind == "txt" else as_json
        if not fault:
            written[str(i)] = [caption.strip() for caption in captions]
    with tempfile.TemporaryDirectory() as place:
        file = shard(Path(place) / "t.tar", members)
        try:
            found = load_data(f"webdataset:{file}", split="all")
        except GeomkitError as error:
            assert not written and "no image with a caption" in str(error), error
            return
        held = dict(zip(map(str, numbers(found)), map(list, found.captions), strict=True))
        assert held == written and found.given == len(keys), found.remarks
        assert sum(some.count for some in found.left_out) == len([f for f in faults if f])


@given(data=st.data(), content=pairs(lines))
@EXAMPLES
def test_folders(data: st.DataObject, content: Pairs) -> None:
    keys = data.draw(st.lists(names, min_size=len(content), max_size=len(content), unique=True))
    split = data.draw(st.booleans())
    written: dict[str, tuple[str, list[str]]] = {}
    left = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for i, (key, captions) in enumerate(zip(keys, content, strict=True)):
            part = data.draw(st.sampled_from(["train", "val"])) if split else ""
            fault = data.draw(st.sampled_from(["", "", "", "no caption", "byte", "hidden"]))
            where = folder / part / (".hidden" if fault == "hidden" else "")
            write(where / f"{key}.{data.draw(st.sampled_from(['png', 'JFIF']))}", PICTURES[i])
            if fault == "byte":
                write(where / f"{key}.txt", b"\xe9")
            elif fault != "no caption":
                write(where / f"{key}.txt", "\n".join(captions))
            left += fault in ("no caption", "byte")
            if not fault:
                written[str(i)] = part, [caption.strip() for caption in captions]
        for part in ("train", "val") if split else ():
            (folder / part).mkdir(exist_ok=True)
        spec = f"imagefolder:{folder},max_bad=1"
        try:
            found = load_data(spec, split="all")
        except GeomkitError as error:
            assert not written and "\n" not in str(error), error
            return
        if not written:  # classes are found instead, or every caption is bad
            return
        held = dict(zip(map(str, numbers(found)), map(list, found.captions), strict=True))
        assert held == {i: captions for i, (_, captions) in written.items()}
        assert found.given - len(found) == left, found.remarks
        for part in ("train", "val") if split else ():
            mine = {i for i, (where, _) in written.items() if where == part}
            if mine:
                assert set(map(str, numbers(load_data(spec, split=part)))) == mine
            else:
                with pytest.raises(GeomkitError, match=f"has no split {part}"):
                    load_data(spec, split=part)
