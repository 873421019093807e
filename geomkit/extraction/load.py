"""From a SOURCE string to embeddings: read from files, or made with a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

from geomkit._core.container import has_cuda_driver
from geomkit._core.files import from_home
from geomkit._core.memory import device_memory
from geomkit._core.parallel import SOLO, Team
from geomkit.embeddings.contents import one_matrix
from geomkit.embeddings.embeddings import Clouds, Embeddings, repeated_rows
from geomkit.embeddings.formats import open_file
from geomkit.embeddings.formats.npy import read_matrix
from geomkit.embeddings.ownership import check_ids
from geomkit.embeddings.reading import Loaded, naming
from geomkit.embeddings.rows import Rows
from geomkit.errors import GeomkitError
from geomkit.interventions.applying import close_model, closed, closed_note
from geomkit.interventions.base import Intervention
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.kinds import find_kind
from geomkit.sources import open_source, own_data, read_source

__all__ = ["load_modalities", "load_pairs", "load_source", "to_device"]

E = TypeVar("E", bound=Embeddings | Clouds)
_FEW = 25_000
"""Number of rows up to which the CPU is done before torch and a device are ready."""


def load_source(
    source: str | Path,
    *,
    data: str | None = None,
    split: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    download: bool = False,
    workers: int | None = None,
    columns: Mapping[str, str] | None = None,
    fast_decode: bool = False,
    trust_data: bool = False,
    close: str | Path | None = None,
    announce: Callable[[str], None] = lambda spec: None,
) -> tuple[Embeddings, str | None]:
    """Return the embeddings of a SOURCE, and their split (``None`` if the files do not say it).

    Args:
        source: A model (see :func:`geomkit.models.open_model`), or the path of embeddings: a
            ``.npz``, ``.npy``, ``.safetensors``, ``.parquet`` or ``.pt`` file, or a folder. The
            content of a path decides which.
        data: DATA spec for a model; default: what a geomkit checkpoint was trained on.
        split: Split of the data, for a model: ``train``, ``val`` or ``all``; default: ``val``.
        device: Device that runs a model, or that embeddings are put on, see :func:`to_device`.
        precision: Precision that a model runs in: ``fp32``, ``bf16``, ``fp64``, or ``auto`` (bf16
            on CUDA that has it); default: ``fp32``, and ``fp64`` for a run trained in it.
        download: Whether a model's files may be downloaded.
        workers: Number of processes that decode images, for a model; default: one per core.
        columns: Name of the array of each modality, such as ``{"image": "a", "text": "b"}``, for a
            file that names its arrays otherwise.
        fast_decode: Whether large JPEGs may be decoded at a reduced size, for a model; this moves
            the embeddings a little.
        trust_data: Whether the data that a checkpoint names may lie outside its folder.
        close: File of an intervention that the embeddings go through, see
            :mod:`geomkit.interventions`.
        announce: Function called with the DATA spec that a checkpoint names, before it is read.

    Returns:
        The embeddings and the name of the split. Of a file with more than two modalities they are
        the first two, as ``meta["notes"]`` says; :func:`load_pairs` returns every pair.

    Raises:
        GeomkitError: If there is no such file, it cannot be read, an option does not apply, a model
            has no data, or those that a checkpoint names lie outside its folder.

    Example:
        >>> import numpy as np, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "e.npy")
        >>> np.save(path, np.random.default_rng(0).standard_normal((2, 10, 4)))
        >>> embeddings, split = load_source(path)
        >>> embeddings.n, embeddings.dim, split
        (10, 4, None)
    """
    (first, *others), found_split = load_pairs(
        source,
        data=data,
        split=split,
        device=device,
        precision=precision,
        download=download,
        workers=workers,
        columns=columns,
        fast_decode=fast_decode,
        trust_data=trust_data,
        close=close,
        announce=announce,
    )
    if isinstance(first, Clouds):
        raise GeomkitError(f"{source}: {first.reason}; only geomkit gap measures that")
    if others:
        pairs = " and ".join("–".join(e.modalities) for e in others if isinstance(e, Embeddings))
        notes = [*first.meta.get("notes", ()), f"of {pairs} nothing is used here"]
        first = replace(first, meta={**first.meta, "notes": notes})
    return first, found_split


def load_pairs(
    source: str | Path,
    *,
    data: str | None = None,
    split: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    download: bool = False,
    workers: int | None = None,
    columns: Mapping[str, str] | None = None,
    fast_decode: bool = False,
    trust_data: bool = False,
    close: str | Path | None = None,
    announce: Callable[[str], None] = lambda spec: None,
    team: Team = SOLO,
) -> tuple[list[Embeddings | Clouds], str | None]:
    """Return embeddings of every pair of modalities of a SOURCE, or clouds without pairs.

    The second value is the name of the split; arguments and errors are as in :func:`load_source`.
    The ranks of a team share the work of a model; each returns the same.
    """
    kind = find_kind(source := from_home(source))
    if kind is not None:
        if data is None and not kind.knows_data:  # before anything large is read
            raise GeomkitError(f"{source}: a model needs data; name some, as --data openmoji")
        if data is not None:
            from geomkit.data import find_data

            find_data(data)
        team.meet()  # what is wrong with the data of one rank ends all, before a long import
        checkpoint = close_model(open_source(source, download=download), close)
        if columns:
            raise GeomkitError(f"{source}: columns apply to embeddings, this is a model")
        if data is None:
            announce(own_data(checkpoint, trust=trust_data) or "")
        embedded, split = _embed(
            checkpoint,
            data,
            split or "val",
            device=device,
            precision=precision,
            workers=workers,
            fast_decode=fast_decode,
            team=team,
        )
        return [embedded], split
    given = {
        "--data": data,
        "--split": split,
        "--fast-decode": fast_decode or None,
        "--precision": precision,
    }
    for name, value in given.items():
        if value is not None:
            raise GeomkitError(f"{source}: {name} applies to checkpoints, these are embeddings")
    pairs, split = read_source(source, columns=columns)
    if close is not None and len(pairs) > 1:
        raise GeomkitError(
            f"{source}: holds more than two modalities; an intervention moves images and texts: "
            "name two, as --columns image=NAME,text=NAME"
        )
    return [to_device(_closed(e, close), device) for e in pairs], split


def _closed(part: Embeddings | Clouds, path: str | Path | None) -> Embeddings | Clouds:
    """The rows after the intervention that a file holds; the same without one."""
    if path is None:
        return part
    if isinstance(part, Clouds):
        raise GeomkitError(f"{path}: an intervention needs pairs of rows; {part.reason}")
    intervention = Intervention.load(path)
    with naming(Path(path)):
        return closed(part, intervention, str(path), closed_note(path))


def load_modalities(
    paths: Mapping[str, str | Path], *, device: str = "auto", close: str | Path | None = None
) -> list[Embeddings | Clouds]:
    """Return embeddings for every pair of named matrices, or clouds without pairs.

    Row i of each matrix belongs to row i of the others, unless there is one matrix, or two of
    unequal length.

    Args:
        paths: File with one matrix, or folder of ``.npy`` files, of each modality. Of several
            matrices in a file the one that is named as the modality counts.
        device: Device for the rows, see :func:`to_device`.
        close: File of an intervention that the rows go through.

    Raises:
        GeomkitError: If a file cannot be read, or three or more differ in rows.
    """
    if not paths:
        raise GeomkitError("modalities: expected one or more, got none")
    matrices, ids, notes = {}, {}, []
    paths = {name: from_home(path) for name, path in paths.items()}
    for name, path in paths.items():
        if not Path(path).exists():
            raise GeomkitError(f"{path}: no such file")
        with naming(Path(path)):
            loaded = _matrix(Path(path), name)
            matrices[name] = Rows(loaded.image, name=name, path=Path(path))
            ids[name] = loaded.ids
            notes += [f"{Path(path).name}: {note}" for note in loaded.notes]
    about = {"path": " ".join(map(str, paths.values()))} | ({"notes": notes} if notes else {})
    lengths = {name: len(rows) for name, rows in matrices.items()}
    if len(paths) < 2 or (len(paths) == 2 and len(set(lengths.values())) > 1):
        return [_closed(Clouds.of(matrices, meta=about), close)]
    if close is not None and len(paths) > 2:
        raise GeomkitError(f"{close}: moves images and texts; give two modalities")
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise GeomkitError(f"modalities: expected equal numbers of rows, got {counted}")
    _check_same_ids(paths, {name: own for name, own in ids.items() if own}, max(lengths.values()))
    found: list[Embeddings | Clouds] = []
    for a, b in combinations(matrices, 2):
        meta = {**about, "path": f"{paths[a]} {paths[b]}"}
        pair = Embeddings.of(matrices[a], matrices[b], modalities=(a, b), meta=meta)
        found.append(to_device(_closed(pair, close), device))
    return found


def _check_same_ids(
    paths: Mapping[str, str | Path], ids: Mapping[str, tuple[str, ...]], n: int
) -> None:
    """Refuse files whose rows have the ids of others: row i of one would meet another's image."""
    for name, own in ids.items():
        with naming(Path(paths[name])):
            check_ids(own, n)
            other, expected = next(iter(ids.items()))
            for row, (a, b) in enumerate(zip(own, expected, strict=True)):
                if a != b:
                    raise GeomkitError(
                        f"row {row} has the id {a}, but {b} in {paths[other]}; sort both alike"
                    )


def _matrix(path: Path, modality: str) -> Loaded:
    """The rows of one modality, and their ids if the file has them."""
    if path.is_dir():
        return Loaded(read_matrix(path), ())
    found = open_file(path)
    if isinstance(found, Loaded):
        raise GeomkitError("holds more than one matrix; give it as SOURCE")
    loaded = one_matrix(found.arrays, modality)
    return replace(loaded, notes=found.notes + loaded.notes)


def to_device(embeddings: E, device: str) -> E:
    """Return the same rows as tensors on a device; ``cpu`` leaves them as they are.

    ``auto`` puts many rows on CUDA, where there is one that has room for them. Clouds without pairs
    are left too: they are measured on the CPU.

    Raises:
        GeomkitError: If this machine has no such device, it has no room for the rows, or no
            float64.
    """
    if device == "cpu" or isinstance(embeddings, Clouds):
        return embeddings
    few = max(embeddings.n, embeddings.m) <= _FEW
    if device == "auto" and (few or not has_cuda_driver()):  # torch takes seconds to be loaded
        return embeddings
    import torch

    from geomkit._core.runtime import resolve_device

    target = resolve_device(device)
    if target == "mps":
        raise GeomkitError("device 'mps': has no float64, which sums need; measure on the CPU")
    # What is computed beside the rows takes its own memory, see geomkit.metrics.budget.
    sides: list[Any] = [embeddings.image, embeddings.text]
    needed = sum(rows[:1].nbytes * len(rows) for rows in sides)
    free = device_memory(torch.empty(0, device=target))
    if device == "auto" and (target == "cpu" or (free is not None and 2 * needed > free)):
        return embeddings
    if free is not None and needed > free:
        raise GeomkitError(
            f"device '{target}': the rows take {needed / 2**30:,.1f} GiB, {free / 2**30:,.1f} GiB "
            "are free; measure on the CPU"
        )

    def moved(rows: Any) -> torch.Tensor:
        step = 65_536
        whole = torch.from_numpy(rows[:1]).to(target).new_empty(tuple(rows.shape))
        for start in range(0, len(rows), step):
            whole[start : start + step] = torch.from_numpy(rows[start : start + step]).to(target)
        return whole

    image, text = map(moved, sides)
    meta = {**embeddings.meta, "norms": embeddings.norms, "device": target}
    return replace(embeddings, image=image, text=text, meta=meta)


def _embed(
    checkpoint: Checkpoint,
    data: str | None,
    split: str,
    *,
    device: str,
    precision: str | None,
    workers: int | None,
    fast_decode: bool,
    team: Team,
) -> tuple[Embeddings, str | None]:
    """A split of some data through a model."""
    from geomkit._core import runtime
    from geomkit.data import load_data, with_options
    from geomkit.extraction.encode import embed
    from geomkit.models.checkpoints.weights import weights_sha256

    device = runtime.resolve_device(device)
    own: dict[str, Any] = checkpoint.meta if checkpoint.kind == "geomkit" else {}
    trained_on: dict[str, Any] = own.get("data") or {}
    spec = data or trained_on.get("spec")
    trained_in = own["config"].get("precision") if own else "fp32"
    if spec is None or trained_in not in runtime.PRECISIONS:
        what = "a precision of training" if spec else "the data it was trained on; give --data"
        raise GeomkitError(f"{checkpoint.source}: damaged checkpoint, does not name {what}")
    pairs = load_data(
        with_options(spec, draft=True) if fast_decode else spec,
        split=split,
        preprocess=checkpoint.preprocess,
        n=trained_on.get("n") if data is None and split == "train" else None,
    )
    if team.size > 1:
        own_weights = weights_sha256(checkpoint.model.clip.state_dict())
        team.check_same({"model": own_weights, **pairs.marks})
    if len(pairs) < 2:
        raise GeomkitError(f"'{spec}': one image in {split}, expected two or more; try --split all")
    # Exact unless asked: rows of bf16 have three digits, whatever a model was trained in.
    precision = precision or ("fp64" if trained_in == "fp64" else "fp32")
    precision = runtime.resolve_precision(precision, device)
    if precision == "fp64":
        checkpoint.model.double()
    embeddings = embed(
        checkpoint, pairs, device=device, precision=precision, workers=workers, team=team
    )
    known = ("loss", "step") if own else ("architecture", "weights", "preprocess_from")
    told = (*known, "closed_by")
    meta = {
        **embeddings.meta,
        "path": checkpoint.source,
        "kind": checkpoint.kind,
        "data": spec,
        "notes": [
            *checkpoint.notes,
            *embeddings.meta.get("notes", ()),
            *repeated_rows("image", embeddings.image),
        ],
        **{key: checkpoint.meta[key] for key in told if key in checkpoint.meta},
        "device": device,
        "precision": precision,
    }
    return replace(embeddings, meta=meta), split
