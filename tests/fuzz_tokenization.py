"""Generate strings, tokenize each by the readable code and by the `tokenizers` library, compare.

    python -m tests.fuzz_tokenization --count 100000 --seed 0

All six lists of an encoding must be equal: ids, segments, tokens, offsets, both masks. Every third
string comes with a second one, every other one is also cut to a random length and padded. Each is
tokenized with four vocabularies, with and without lower-casing: two are trained on such strings, so
that their rarest letters occur as pieces; two are the published one of MiniLM, if it is here.
Chapter 02 reads the record of such a run, made with

    python -m tests.fuzz_tokenization --json book/records/02_tokenization_fuzz.json
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import random
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from bertlearn.data import sources
from bertlearn.tokenization import BertTokenizer, Encoding, count_words, train_wordpiece

KEYS = ("ids", "type_ids", "tokens", "offsets", "attention_mask", "special_tokens_mask")
_ENGLISH = """
the bank raised its interest rate we sat on of river trial was short jury agreed within an hour
don't e.g. U.S. unaffable raising bankers Zürich naïve café ﬁnance straße İstanbul ΟΔΟΣ ǅ Ⅷ
"""
ENGLISH = _ENGLISH.split()
CHINESE = "银行提高了利率。我们坐在河岸上，审判很短！陪审团“一小时”内达成一致："
CHINESE += "１２３ＡＢ豈更車賈㐀𠀀𪜀𫝀𫠝𬺰"
EMOJI = ["😀", "👩‍👩‍👧‍👦", "❤️", "🇨🇳", "👍🏽", "☺", "1️⃣", "🏴‍☠️"]
SPACES = " \t\n\r\x0b\x0c\x1c\x1f\x85\u00a0\u1680\u2003\u2028\u2029\u202f\u205f\u3000"
HIDDEN = "\x00\x01\x07\x1b\x7f\x80\x9f\u00ad\u200b\u200c\u200d\u200e\u202e\u2060\ufeff\ufffd\ue000"
MARKS = (
    "\u0301\u0300\u0323\u0327\u0334\u0345\u0344\u05b0\u0651\u0e34\u0f71\u3099\u20d0\u302e\u302f"
    "\u1b44\ua953\u0898\u08d3\u08d4\u1abf\U0001d165\U0001d16d\U00016ff0\U0001e136\U0001e944"
)
SCRIPTS = "аЙЁßæøıłñçÅǻﷺעִבשلاًरी்กำ한국어각힣ᄀ ᅡ ᆨがパガﾊﾟǆԱևა Აꭰ𐐀𞤀Ω ΩKÅ"
SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡§«»‘’“”…—·•€£¥©×÷、。《》「」！，：；？～＄"
SPECIAL = ["[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "[mask]", "[", "]", "##", "[MASK"]


def pieces(rng: random.Random) -> Iterator[str]:
    """The parts of one string, of one kind or of many."""
    kinds = rng.sample(range(10), rng.choice((1, 2, 2, 3, 10)))
    for _ in range(rng.choice((0, 1, 2, 4, 8, 16))):
        kind = rng.choice(kinds)
        if kind == 0:
            word = rng.choice(ENGLISH)
            yield rng.choice((word, word.upper(), word.title(), word + " "))
        elif kind == 1:
            yield "".join(rng.choices(CHINESE, k=rng.randint(1, 5)))
        elif kind == 2:
            yield rng.choice(EMOJI)
        elif kind == 3:
            yield rng.choice(SPACES)
        elif kind == 4:
            yield rng.choice(HIDDEN)
        elif kind == 5:
            yield rng.choice("aeiouAEIOUkz가漢 ") + "".join(rng.choices(MARKS, k=rng.randint(1, 4)))
        elif kind == 6:
            yield "".join(rng.choices(SCRIPTS, k=rng.randint(1, 4)))
        elif kind == 7:
            yield rng.choice(SIGNS)
        elif kind == 8:
            yield rng.choice(SPECIAL)
        else:
            yield any_character(rng)
    if rng.random() < 0.03:
        yield rng.choice("abé한\u0301") * rng.randint(98, 103)


def any_character(rng: random.Random) -> str:
    """Any character there is or could be, rare scripts as often as common ones."""
    while True:
        point = rng.choice((rng.randrange(0x3000), rng.randrange(0x10000), rng.randrange(0x110000)))
        if not 0xD800 <= point < 0xE000:
            return chr(point)


def string(rng: random.Random) -> str:
    """One string."""
    return "".join(pieces(rng))


def tokenizers(seed: int = 0) -> list[tuple[BertTokenizer, BertTokenizer]]:
    """Readable and fast tokenizer of each vocabulary."""
    rng = random.Random(f"vocabulary {seed}")
    texts = [string(rng) for _ in range(3000)]
    found = []
    for lowercase in (True, False):
        vocab = train_wordpiece(count_words(texts, lowercase), 6000, min_count=1)
        found.append((vocab, lowercase))
        if sources.is_cached("minilm"):
            path = sources.path("minilm") / "vocab.txt"
            found.append((BertTokenizer.from_file(path).vocab, lowercase))
    return [
        tuple(BertTokenizer(vocab, lowercase, backend) for backend in ("readable", "fast"))
        for vocab, lowercase in found
    ]


def differences(ours: Encoding, theirs: Encoding) -> list[str]:
    """The lists that are not equal."""
    return [
        f"{key}: {getattr(ours, key)} is not {getattr(theirs, key)}"
        for key in KEYS
        if getattr(ours, key) != getattr(theirs, key)
    ]


def compare(
    rng: random.Random, both: list[tuple[BertTokenizer, BertTokenizer]]
) -> tuple[list[str], int]:
    """One generated string through all tokenizers: the differences, and the tokens compared."""
    text, pair = string(rng), string(rng) if rng.random() < 1 / 3 else None
    limit = rng.randint(5, 24) if rng.random() < 0.5 else None
    batch = [text if pair is None else (text, pair), string(rng)]
    found, count = [], 0
    for readable, fast in both:
        ours, theirs = readable.encode(text, pair), fast.encode(text, pair)
        count += len(ours.ids)
        wrong = differences(ours, theirs)
        if readable.decode(ours.ids) != fast.decode(ours.ids):
            wrong.append(f"decoded: {readable.decode(ours.ids)!r} is not {fast.decode(ours.ids)!r}")
        if limit:
            rows = (one.encode_batch(batch, max_length=limit) for one in (readable, fast))
            for a, b in zip(*rows, strict=True):
                wrong += differences(a, b)
        found += [f"{text!r}, {pair!r}, {limit}, lowercase={fast.lowercase}: {w}" for w in wrong]
    return found, count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="strings to generate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    chosen = parser.parse_args()
    both, rng = tokenizers(chosen.seed), random.Random(chosen.seed)
    bad, tokens, start = 0, 0, time.perf_counter()
    for number in range(chosen.count):
        found, count = compare(rng, both)
        tokens += count
        bad += bool(found)
        for line in found[:3] if bad <= 10 else ():
            print(f"string {number}: {line}")
    seconds = time.perf_counter() - start
    print(
        f"{chosen.count:,} strings, {len(both)} tokenizers, {tokens:,} tokens compared in "
        f"{seconds:.0f} s: {bad} strings with a difference"
    )
    if chosen.json:
        record = {"strings": chosen.count, "seed": chosen.seed, "vocabularies": len(both)}
        record |= {"tokens": tokens, "differences": bad, "seconds": round(seconds)}
        record |= {"tokenizers": importlib.metadata.version("tokenizers")}
        record |= {"python": platform.python_version(), "unicode": unicodedata.unidata_version}
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
