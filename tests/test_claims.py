"""Proves that the ledger of claims says what the notebooks measured.

Every claim has a chapter and one verdict; a chapter that exists leaves none of its claims open;
and every figure in a verdict stands in the code or the text outputs of the notebook it links to.

    pytest tests/test_claims.py
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
ENTRY = re.compile(r'^"(?P<claim>.+)"\n: (?P<text>.+)$', re.MULTILINE)
VERDICT = re.compile(r"\*\*(Open|Holds in part|Holds|Does not hold)\.\*\*")
LINK = re.compile(r"\]\(\.\./chapters/(?P<file>[\w.]+)(?:#(?P<anchor>[\w-]+))?\)")
CITATION = re.compile(r"\{cite:\w\}`[^`]*`")
FIGURE = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger."""

    text: str
    verdict: str
    chapters: tuple[str, ...]
    link: re.Match | None
    prose: str


def read_ledger(source: str) -> list[Claim]:
    """The entries of the ledger's source."""
    claims = []
    for entry in ENTRY.finditer(source):
        text = entry["text"]
        verdicts = VERDICT.findall(text)
        assert len(verdicts) == 1, f"{entry['claim']}: one verdict, not {verdicts}"
        head, prose = text.split(f"**{verdicts[0]}.**")
        chapters = tuple(re.findall(r"\b\d\d\b", re.sub(r"\(.*?\)", "", head)))
        prose = CITATION.sub("", prose)
        claims.append(Claim(entry["claim"], verdicts[0], chapters, LINK.search(head), prose))
    return claims


CLAIMS = read_ledger((ROOT / "book" / "claims.md").read_text(encoding="utf-8"))
SETTLED = [claim for claim in CLAIMS if claim.verdict != "Open"]


def without_commas(text: str) -> str:
    """1,024 and 1024 are one number."""
    return re.sub(r"(?<=\d),(?=\d{3})", "", text)


def figures(text: str) -> set[str]:
    """The numbers of a text, as written."""
    return set(FIGURE.findall(without_commas(text)))


def code_and_outputs(file: Path) -> str:
    """What a notebook computes and prints."""
    parts = []
    for cell in nbformat.read(file, as_version=4).cells:
        if cell.cell_type == "code":
            parts.append(cell.source)
            for output in cell.outputs:
                parts.append(output.get("text", ""))
                parts.append(output.get("data", {}).get("text/plain", ""))
    return "\n".join(parts)


def anchors(file: Path) -> set[str]:
    """The anchors of a notebook's headings, as the book makes them."""
    text = "\n".join(
        cell.source
        for cell in nbformat.read(file, as_version=4).cells
        if cell.cell_type == "markdown"
    )
    titles = re.findall(r"^#{1,3} (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_entry_is_read() -> None:
    source = (ROOT / "book" / "claims.md").read_text(encoding="utf-8")
    assert len(CLAIMS) == source.count("\n: ") == 33
    assert all(claim.chapters for claim in CLAIMS)


def test_a_chapter_that_exists_leaves_no_claim_open() -> None:
    written = {file.name[:2] for file in (ROOT / "chapters").glob("[0-9][0-9]_*.ipynb")}
    open_claims = [c.text for c in CLAIMS if c.verdict == "Open" and set(c.chapters) <= written]
    assert not open_claims


@pytest.mark.parametrize("claim", SETTLED, ids=lambda claim: claim.text[:40])
def test_a_verdict_is_backed_by_its_chapter(claim: Claim) -> None:
    assert claim.link is not None, "a settled claim links to where it was measured"
    file = ROOT / "chapters" / claim.link["file"]
    assert claim.link["anchor"] in anchors(file)
    unbacked = figures(claim.prose) - figures(code_and_outputs(file))
    assert figures(claim.prose), "a verdict rests on at least one figure"
    assert not unbacked, f"{sorted(unbacked)} stand in no cell of {file.name}"


def test_a_figure_without_a_cell_is_noticed() -> None:
    """The rule above can fail."""
    prose = SETTLED[0].prose.rstrip(".") + ", which is 98.7654 or 1,234,567."
    file = ROOT / "chapters" / SETTLED[0].link["file"]  # type: ignore[index]
    assert {"98.7654", "1234567"} <= figures(prose) - figures(code_and_outputs(file))
