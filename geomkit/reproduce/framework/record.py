"""What a finished experiment writes down: its outcome, and the content of ``run.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from geomkit._core.files import atomic_write
from geomkit._core.schema import check_schema, once
from geomkit._core.shown import in_markdown
from geomkit.reproduce.framework.claims import UNDECIDED, Claim
from geomkit.reproduce.framework.experiment import Experiment, Options
from geomkit.reproduce.framework.results import Rows
from geomkit.reproduce.framework.seal import content_sha256, hashes

__all__ = ["JudgedClaim", "Outcome", "Record", "Seconds", "is_done", "is_intact", "read_record"]

NAME = "run.json"
RESULTS = "results.csv"
FROM_SCRATCH = "results-scratch.csv"
"""Numbers of the models that are trained from scratch, beside those of fine-tuning."""


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict, as text.

    Attributes:
        claim: The claim.
        published: The paper's numbers for it.
        otherwise: Likely reason if it does not hold.
        status: Status of the verdict.
        why: Numbers behind the verdict.
        p: p value of the verdict, ``None`` if undecided.
    """

    claim: str
    published: str
    otherwise: str
    status: str
    why: str
    p: float | None = None

    @classmethod
    def of(cls, claim: Claim, rows: Rows, *, quick: bool, share: float = 1.0) -> Self:
        """A claim as tested on rows, at a look with this share of the error."""
        found = claim.verdict(rows, quick=quick, share=share)
        p = None if math.isnan(found.p) else found.p
        return cls(claim.text, claim.published, claim.otherwise, found.status, found.why, p)


@dataclass(frozen=True)
class Outcome:
    """Result of an experiment.

    Attributes:
        experiment: The experiment.
        rows: Its measured numbers.
        verdicts: The claims with their verdicts.
        folder: Folder with its files.
    """

    experiment: Experiment
    rows: Rows
    verdicts: tuple[JudgedClaim, ...]
    folder: Path

    @classmethod
    def of(
        cls, experiment: Experiment, rows: Rows, folder: Path, options: Options, seeds: int = 0
    ) -> Self:
        """Outcome of rows of so many seeds, 0 for all: the claims are tested at that look."""
        share = experiment.share(options, seeds or len(options.seeds))
        verdicts = tuple(
            JudgedClaim.of(claim, rows, quick=options.quick, share=share)
            for claim in experiment.claims
        )
        return cls(experiment, rows, verdicts, folder)

    @property
    def undecided(self) -> int:
        """Number of claims that more seeds might decide."""
        return sum(
            v.status == UNDECIDED and " seeds" in v.why and not v.why.startswith("cannot be tested")
            for v in self.verdicts
        )


@dataclass(frozen=True)
class Seconds:
    """Time that an experiment took.

    Attributes:
        training: Seconds of training the models that were not trained before.
        measuring: Seconds of measuring and drawing.
    """

    training: float
    measuring: float


@dataclass(frozen=True)
class Record:
    """Content of ``run.json``: how an experiment was made, and its verdicts.

    Attributes:
        experiment: Name of the experiment.
        title: Title of its report.
        options: Options that decide the numbers.
        command: Command line that makes it again.
        cells: Key and configuration of each trained model, as written.
        seconds: Time that it took.
        verdicts: Claims and their verdicts.
        versions: Versions of packages by name.
        measured_by: SHA-256 of geomkit's sources that measured the numbers; empty if made before
            runs were sealed.
        written_by: SHA-256 of geomkit's sources that drew, judged and wrote the report.
        machine: Device and CPU that the numbers were computed on.
        files: SHA-256 of each file of the report by name, in the order of the report.
        seal: SHA-256 of all the rest of this content.
        seeds: Number of seeds used; 0 in a record of an older version, which used all.
        beside: The claims as judged on models that are trained from scratch, if they were.
        explains: Whether the claims are explanations of ours rather than the paper's.
    """

    experiment: str
    title: str
    options: Options
    command: str
    cells: tuple[Mapping[str, Any], ...]
    seconds: Seconds
    verdicts: tuple[JudgedClaim, ...]
    versions: Mapping[str, str]
    measured_by: str = ""
    written_by: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    seal: str = ""
    seeds: int = 0
    beside: tuple[JudgedClaim, ...] = ()
    explains: bool = False

    @property
    def made_with(self) -> str:
        """Names and versions of the packages."""
        return ", ".join(f"{name} {version}" for name, version in self.versions.items())

    def reason(self, unmet: JudgedClaim) -> str:
        """Likely reason why a claim is undecided; or did not reproduce, its own if it names one."""
        if unmet.why.startswith("cannot be tested"):
            return "The results hold no rows for it with these options."
        if unmet.status == UNDECIDED:
            if self.options.quick:
                return "A full run trains longer and over several seeds."
            if " seeds" in unmet.why:
                count = f"{self.seeds or len(self.options.seeds)} seeds"
                return f"{count} do not decide it; more (`--seeds`) would narrow the interval."
            if " settings" in unmet.why:
                return "It holds in some settings and not in others; the figures say in which."
            return "One run, whose own interval holds both sides."
        if not unmet.otherwise and self.options.pretrained is None:
            return (
                "Here a small model is trained on few pairs; the paper fine-tunes a pretrained "
                "ViT-B/32 on COCO."
            )
        return unmet.otherwise or "Data, model or length of training differ from the paper's."

    def in_markdown(self) -> Record:
        """The record with texts as a report may show them: ``run.json`` may be a stranger's."""
        return replace(
            self,
            title=in_markdown(self.title),
            command=in_markdown(self.command),
            verdicts=tuple(_in_markdown(verdict) for verdict in self.verdicts),
            beside=tuple(_in_markdown(verdict) for verdict in self.beside),
            versions={in_markdown(k): in_markdown(v) for k, v in self.versions.items()},
        )

    def sealed(self, folder: Path, written: Sequence[str], code: str) -> Record:
        """The record with the hashes of the files of its folder.

        What was measured (results and examples) keeps the hash that it has: a report that is drawn
        again does not vouch for numbers that were changed in between.

        Args:
            folder: Folder of the report.
            written: Names of the files that were written with the report.
            code: SHA-256 of the sources that wrote them.
        """
        others = (p.name for kind in ("*.csv", "*.json") for p in folder.glob(kind))
        measured = [RESULTS, *sorted(name for name in others if name not in (RESULTS, NAME))]
        files = hashes(folder, [*measured, *written])
        kept = {name: self.files[name] for name in measured if name in self.files}
        found = replace(self, written_by=code, files={**files, **kept})
        return replace(found, seal=content_sha256(found._content()))

    def _content(self) -> dict[str, Any]:
        """Content of ``run.json`` without the seal."""
        content = {"format": "geomkit-experiment", "schema_version": 1, **asdict(self)}
        content["options"] = self.options.to_json()
        del content["seal"]
        return content

    def write(self, folder: Path) -> None:
        """Write ``run.json`` into a folder, atomically."""
        content = {**self._content(), "seal": self.seal}
        with atomic_write(folder / NAME, overwrite=True) as file:
            file.write(json.dumps(content, indent=1).encode())


def _in_markdown(verdict: JudgedClaim) -> JudgedClaim:
    return replace(
        verdict,
        claim=in_markdown(verdict.claim),
        published=in_markdown(verdict.published),
        otherwise=in_markdown(verdict.otherwise),
        status=in_markdown(verdict.status),
        why=in_markdown(verdict.why),
    )


def read_record(folder: Path) -> Record | None:
    """Record of the finished experiment in a folder; ``None`` if there is none or it is damaged."""
    path = folder / NAME
    try:
        content = json.loads(path.read_text("utf-8"))
        check_schema(content, dict[str, Any], str(path))
        about = content.pop("format", None), content.pop("schema_version", None)
        if about != ("geomkit-experiment", 1):
            return None
        check_schema(content, Record, str(path))
        check_schema([cell.get("key") for cell in content["cells"]], list[str], str(path))
        content["options"] = Options.from_json(content["options"])
        content["seconds"] = Seconds(**content["seconds"])
        for name in ("verdicts", "beside"):
            content[name] = tuple(JudgedClaim(**one) for one in content.get(name, ()))
        content["cells"] = tuple(content["cells"])
        return Record(**content)
    except (OSError, ValueError, KeyError, RecursionError):  # a GeomkitError is a ValueError
        return None


def is_intact(folder: Path) -> bool:
    """Whether the ``run.json`` of a folder holds what its run sealed."""
    try:
        content = json.loads((folder / NAME).read_text("utf-8"), object_pairs_hook=once)
        return bool(content.pop("seal") == content_sha256(content))
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return False


def is_done(experiment: Experiment, options: Options, folder: Path) -> bool:
    """Whether a folder holds this experiment, made with these options and the cells of today."""
    record = read_record(folder)
    if (
        record is None
        or record.experiment != experiment.name
        or record.options != options.decisive
        or not (folder / RESULTS).exists()
    ):
        return False
    seeds, beside = record.seeds or len(options.seeds), bool(record.beside)
    cells = experiment.every_cell(options, seeds, beside=beside)
    return {cell["key"] for cell in record.cells} == {cell.key for cell in cells}
