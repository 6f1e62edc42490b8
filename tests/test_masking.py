"""Blanks: how many, where, and what stands in them.

Proved here: the exact count and the Bernoulli rate, the 80/10/10 mixture and random words that are
uniform over the ordinary ids, by chi-squared tests; special tokens and padding are never asked for
and never drawn; words are hidden as wholes, in English by their pieces, in Chinese by jieba's words
(where transformers' collator takes a sentence without blanks for one word); the same generator
gives the same blanks, and each call others; bad arguments give one sentence that says what is
wrong. The task head and its loss: test_parity.py.

    pytest tests/test_masking.py
"""

import itertools
import math
import os
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlearn.masking import (
    IGNORE,
    choose_tokens,
    choose_words,
    mask_tokens,
    replace_tokens,
    word_numbers,
)
from bertlearn.tokenization import BertTokenizer

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = (PAD, UNK, CLS, SEP, MASK)
VOCAB = 105  # five special ids and a hundred ordinary ones
SETTING = {"vocab_size": VOCAB, "mask_id": MASK, "special_ids": SPECIAL}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def texts(rows=200, seq=62, seed=9):
    """Random texts [CLS] ... [SEP] of several lengths, padded; and the ordinary ids."""
    ids = torch.randint(len(SPECIAL), VOCAB, (rows, seq), generator=rng(seed))
    lengths = torch.randint(5, seq - 1, (rows,), generator=rng(seed + 1))
    ids[:, 0] = CLS
    ids[torch.arange(rows), lengths] = SEP
    ids[torch.arange(seq) > lengths[:, None]] = PAD
    ids[::7, 2] = UNK
    return ids, ~torch.isin(ids, torch.tensor(SPECIAL))


def chi_squared(counts, shares):
    """Pearson's statistic of the counts under these shares, in standard deviations from what is
    expected of it; beyond 4 is less likely than one in some thousands."""
    counts = torch.as_tensor(counts, dtype=torch.float64)
    expected = counts.sum() * torch.as_tensor(shares, dtype=torch.float64)
    free = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    return (statistic - free) / math.sqrt(2 * free)


def kinds(ids, blanks, labels):
    """Counts of [MASK], another word, the same word among the targets."""
    asked = labels != IGNORE
    masked, same = blanks[asked] == MASK, blanks[asked] == ids[asked]
    return [int(x.sum()) for x in (masked, ~masked & ~same, same)]


# ---------------------------------------------------------------- how many
@pytest.mark.parametrize("rate", [0.05, 0.15, 0.4, 1.0])
def test_the_exact_count(rate):
    ids, allowed = texts()
    chosen = choose_tokens(allowed, rng(), rate)
    for row, may in zip(chosen, allowed, strict=True):
        assert row.sum() == max(1, round(rate * int(may.sum())))
        assert not (row & ~may).any()


@given(st.integers(0, 40), st.integers(0, 20), st.floats(0.01, 1.0), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_the_exact_count_of_any_row(size, padding, rate, seed):
    allowed = torch.arange(size + padding)[None] < size
    chosen = choose_tokens(allowed, rng(seed), rate)
    assert chosen.sum() == (max(1, round(rate * size)) if size else 0)
    assert not (chosen & ~allowed).any()


def test_every_token_is_as_likely_as_any_other():
    allowed = torch.ones(4000, 20, dtype=torch.bool)
    for exact in (True, False):
        hits = choose_tokens(allowed, rng(1), 0.15, exact).sum(0)
        assert abs(chi_squared(hits, torch.full((20,), 1 / 20))) < 4


def test_pairs_are_drawn_without_favor():
    """Of five tokens two are asked for: each of the ten pairs alike."""
    chosen = choose_tokens(torch.ones(5000, 5, dtype=torch.bool), rng(2), 0.4)
    pairs = list(itertools.combinations(range(5), 2))
    counts = [int((chosen[:, i] & chosen[:, j]).sum()) for i, j in pairs]
    assert sum(counts) == 5000 and chi_squared(counts, [0.1] * 10) < 4


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_the_bernoulli_rate(rate):
    allowed = torch.ones(4000, 30, dtype=torch.bool)
    count = choose_tokens(allowed, rng(3), rate, exact=False).sum(1)
    total = int(count.sum())
    assert abs(chi_squared([total, 120_000 - total], [rate, 1 - rate])) < 4
    # counts a row vary as those of 30 independent draws
    binomial = [math.comb(30, k) * rate**k * (1 - rate) ** (30 - k) for k in range(31)]
    likely = [k for k in range(31) if 4000 * binomial[k] > 5]
    seen = [int((count == k).sum()) for k in likely]
    shares = [binomial[k] for k in likely]
    rest = 1 - sum(shares)
    assert chi_squared([*seen, 4000 - sum(seen)], [*shares, rest]) < 4


# ---------------------------------------------------------------- what stands in a blank
@pytest.mark.parametrize("mix", [(0.8, 0.1, 0.1), (0.5, 0.3, 0.2)])
def test_the_mixture(mix):
    ids, _ = texts(rows=2000)
    blanks, labels = mask_tokens(ids, rng(4), **SETTING, mix=mix)
    shares = [mix[0], mix[1] * 99 / 100, mix[2] + mix[1] / 100]  # one draw in 100 hits the word
    assert abs(chi_squared(kinds(ids, blanks, labels), shares)) < 4


@pytest.mark.parametrize("kind", range(3))
def test_pure_mixtures(kind):
    ids, _ = texts()
    mix = tuple(float(kind == i) for i in range(3))
    counts = kinds(ids, *mask_tokens(ids, rng(5), **SETTING, mix=mix))
    assert counts[0] == (sum(counts) if kind == 0 else 0)
    if kind == 1:
        assert counts[1] > 0.95 * sum(counts)
    if kind == 2:
        assert counts[2] == sum(counts)


def test_random_words_are_uniform_over_the_ordinary_ids():
    ids = torch.full((500, 50), 7)
    blanks, _ = mask_tokens(ids, rng(6), **SETTING, rate=1.0, mix=(0.0, 1.0, 0.0))
    counts = torch.bincount(blanks.flatten(), minlength=VOCAB)
    assert not counts[list(SPECIAL)].any()
    assert abs(chi_squared(counts[len(SPECIAL) :], torch.full((100,), 1 / 100))) < 4


def test_ordinary_ids_need_not_be_neighbors():
    special = (0, 3, 50, 99, 104)
    ids = torch.full((500, 50), 7)
    setting = {"vocab_size": VOCAB, "mask_id": 50, "special_ids": special}
    blanks, _ = mask_tokens(ids, rng(6), **setting, rate=1.0, mix=(0.0, 1.0, 0.0))
    assert set(range(VOCAB)) - set(blanks.unique().tolist()) == set(special)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("wholes", [True, False])
def test_specials_and_padding_are_left_alone(exact, wholes):
    ids, allowed = texts(rows=500)
    words = torch.arange(ids.shape[1]).expand_as(ids) // 2 if wholes else None
    for rate in (0.15, 1.0):
        blanks, labels = mask_tokens(ids, rng(7), **SETTING, rate=rate, exact=exact, words=words)
        asked = labels != IGNORE
        assert not (asked & ~allowed).any()
        assert torch.equal(blanks[~asked], ids[~asked])
        assert torch.equal(labels[asked], ids[asked])
        assert (labels[~asked] == IGNORE).all()
        new = blanks[asked & (blanks != ids)]
        assert not torch.isin(new, torch.tensor([PAD, UNK, CLS, SEP])).any()
    assert asked.sum() == allowed.sum()  # at rate 1 all others are asked for


def test_the_mask_is_special_even_if_not_named():
    ids = torch.full((100, 20), MASK)
    setting = {"vocab_size": VOCAB, "mask_id": MASK, "special_ids": (PAD,)}
    blanks, labels = mask_tokens(ids, rng(), **setting)
    assert torch.equal(blanks, ids) and (labels == IGNORE).all()
    ids = torch.full((100, 100), 9)
    blanks, _ = mask_tokens(ids, rng(), **setting, rate=1.0, mix=(0.0, 1.0, 0.0))
    assert MASK not in blanks


# ---------------------------------------------------------------- chance
def test_the_same_generator_gives_the_same_blanks_and_each_call_others():
    ids, _ = texts()
    before = ids.clone()
    draw = rng(8)
    first, second = mask_tokens(ids, draw, **SETTING), mask_tokens(ids, draw, **SETTING)
    again = mask_tokens(ids, rng(8), **SETTING)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    differ = ((first[1] != IGNORE) != (second[1] != IGNORE)).any(dim=1)
    assert differ.float().mean() > 0.9
    assert torch.equal(ids, before), "the ids that were given must stay as they are"
    state = torch.random.get_rng_state()
    mask_tokens(ids, draw, **SETTING)
    assert torch.equal(state, torch.random.get_rng_state()), "no draw from the global generator"


def test_in_ten_passes_most_tokens_are_asked_for_once():
    """1 - 0.85 ** 10 is 0.80: dynamic masking; with one mask for all passes it would be 0.15."""
    ids, allowed = texts(rows=500)
    draw, seen = rng(10), torch.zeros_like(allowed)
    for _ in range(10):
        seen |= mask_tokens(ids, draw, **SETTING, exact=False)[1] != IGNORE
    assert abs(seen[allowed].float().mean().item() - (1 - 0.85**10)) < 0.01


def test_replacing_does_not_depend_on_what_is_chosen():
    """One draw for each place: the mixture is the same for whole words."""
    ids, _ = texts(rows=2000)
    words = torch.arange(ids.shape[1]).expand_as(ids) // 3
    blanks, labels = mask_tokens(ids, rng(11), **SETTING, words=words)
    shares = [0.8, 0.1 * 99 / 100, 0.1 + 0.1 / 100]
    assert abs(chi_squared(kinds(ids, blanks, labels), shares)) < 4


def test_replace_tokens_keeps_what_is_not_chosen():
    ids = torch.arange(5, 15)[None]
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    ordinary = torch.arange(5, VOCAB)
    assert torch.equal(replace_tokens(ids, chosen, rng(), MASK, ordinary), ids)
    chosen[0, 3] = True
    got = replace_tokens(ids, chosen, rng(), MASK, ordinary, (1.0, 0.0, 0.0))
    assert got.tolist() == [[5, 6, 7, MASK, 9, 10, 11, 12, 13, 14]]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_the_type_of_ids_stays(dtype):
    ids, _ = texts()
    blanks, labels = mask_tokens(ids.to(dtype), rng(), **SETTING)
    assert blanks.dtype == labels.dtype == dtype


# ---------------------------------------------------------------- whole words
def test_words_are_hidden_whole_or_not_at_all():
    ids, allowed = texts(rows=300)
    lengths = torch.randint(1, 5, (300, 62), generator=rng(12))
    words = torch.stack([torch.repeat_interleave(torch.arange(62), row)[:62] for row in lengths])
    for exact in (True, False):
        chosen = choose_words(allowed, words, rng(13), 0.15, exact)
        assert not (chosen & ~allowed).any()
        for row, may, number in zip(chosen, allowed, words, strict=True):
            for word in number[may].unique():
                pieces = row[may & (number == word)]
                assert pieces.all() or not pieces.any()
            if exact:
                assert row.sum() <= max(1, round(0.15 * int(may.sum())))


def test_words_of_one_token_fill_the_budget():
    _, allowed = texts(rows=300)
    words = torch.arange(62).expand_as(allowed)
    for rate in (0.15, 0.5):
        chosen = choose_words(allowed, words, rng(14), rate)
        for row, may in zip(chosen, allowed, strict=True):
            assert row.sum() == max(1, round(rate * int(may.sum())))


def test_the_bernoulli_rate_is_one_of_words():
    allowed = torch.ones(3000, 30, dtype=torch.bool)
    words = (torch.arange(30) // 3).expand(3000, 30)
    chosen = choose_words(allowed, words, rng(15), 0.15, exact=False)
    total = int(chosen.sum()) // 3
    assert abs(chi_squared([total, 30_000 - total], [0.15, 0.85])) < 4


def test_a_word_beyond_the_budget_is_passed_over():
    """Ten tokens, a budget of two: the word of eight never fits, the other two always do."""
    words = torch.tensor([[0] * 8 + [1, 2]]).expand(50, 10)
    chosen = choose_words(torch.ones(50, 10, dtype=torch.bool), words, rng(16), 0.2)
    assert not chosen[:, :8].any() and chosen[:, 8:].all()


def test_rows_without_words():
    allowed = torch.zeros(2, 4, dtype=torch.bool)
    assert not choose_words(allowed, torch.zeros(2, 4), rng()).any()
    assert not choose_tokens(allowed, rng()).any()
    assert choose_words(~allowed, torch.zeros(2, 4), rng(), 0.2).sum() == 0  # too long for one


def test_word_numbers():
    #        [CLS]  他      在      河      边      [SEP]
    offsets = [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (0, 0), (0, 0)]
    got = word_numbers(offsets, [(0, 1), (1, 2), (2, 4)])
    assert got[1:5] == [0, 1, 2, 2]
    assert len(set(got[:1] + got[5:])) == 3 and not set(got[:1] + got[5:]) & {0, 1, 2}
    gaps = word_numbers([(0, 2), (2, 3), (5, 6), (6, 8)], [(0, 3), (6, 8)])
    assert gaps[0] == gaps[1] and gaps[2] not in (gaps[0], gaps[3])


# ---------------------------------------------------------------- real words
ENGLISH = "unaffable people embrace antidisestablishmentarianism, don't they?"
CHINESE = "中国人民代表大会常务委员会制定法律，人民法院依照法律规定独立行使审判权。"


@pytest.fixture(scope="module")
def tokenizer():
    letters = sorted(set(ENGLISH.lower()) - {" "})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "people", "un", "##aff", "##able"]
    pieces += [*letters, *(f"##{letter}" for letter in letters), *sorted(set(CHINESE))]
    return BertTokenizer(list(dict.fromkeys(pieces)))


def hidden_words(tokenizer, text, spans, rounds=200):
    """The parts of the text that are hidden together, over several draws."""
    encoded = tokenizer.encode(text)
    ids, words = torch.tensor([encoded.ids]), word_numbers(encoded.offsets, spans)
    setting = {"vocab_size": tokenizer.vocab_size, "mask_id": MASK, "special_ids": SPECIAL}
    draw, found = rng(17), set()
    for _ in range(rounds):
        _, labels = mask_tokens(ids, draw, **setting, words=torch.tensor([words]), rate=0.3)
        places = (labels[0] != IGNORE).nonzero()[:, 0].tolist()
        for _, group in itertools.groupby(places, key=lambda place: words[place]):
            run = list(group)
            found.add(text[encoded.offsets[run[0]][0] : encoded.offsets[run[-1]][1]])
    return found


def test_english_pieces_are_hidden_by_words(tokenizer):
    assert tokenizer.encode("unaffable").tokens[1:-1] == ["un", "##aff", "##able"]
    spans = [(0, 9), (10, 16), (17, 24), (25, 53), (53, 54), (55, 58), (58, 59), (59, 60), (61, 65)]
    spans.append((65, 66))
    words = {ENGLISH[start:end] for start, end in spans}
    found = hidden_words(tokenizer, ENGLISH, spans)
    assert found == words - {"antidisestablishmentarianism"}  # 28 letters, over the budget


def jieba_spans(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jieba = pytest.importorskip("jieba")
    jieba.setLogLevel(60)
    return [(start, end) for _, start, end in jieba.tokenize(text)]


def test_chinese_characters_are_hidden_by_words(tokenizer):
    spans = jieba_spans(CHINESE)
    words = {CHINESE[start:end] for start, end in spans}
    assert {"人民法院", "法律"} <= words and len(spans) > 10
    assert hidden_words(tokenizer, CHINESE, spans) == words


def test_a_collator_in_use_takes_a_chinese_sentence_for_one_word(tokenizer, tmp_path):
    """What the words are for: transformers finds words by the blanks between them."""
    import transformers

    tokenizer.save(tmp_path / "vocab.txt")
    theirs = transformers.BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collator = transformers.DataCollatorForLanguageModeling(
            theirs, whole_word_mask=True, mlm_probability=0.15, seed=0
        )
    counts = set()
    for text in (CHINESE, ENGLISH):
        encoded = theirs(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        for _ in range(60):
            batch = collator([dict(encoded)])
            counts.add((text, int((batch["labels"] != IGNORE).sum())))
    of_chinese = {count for text, count in counts if text == CHINESE}
    assert of_chinese == {0, len(CHINESE)}  # all of it or nothing
    assert len({count for text, count in counts if text == ENGLISH}) > 2


# ---------------------------------------------------------------- what makes no sense
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 0}, "rate must lie in (0, 1], not 0"),
        ({"rate": 15}, "0.15 means 15 percent"),
        ({"mix": (0.8, 0.1)}, "three shares"),
        ({"mix": (0.8, 0.1, 0.2)}, "the sum 1"),
        ({"mix": (1.2, -0.1, -0.1)}, "three shares"),
        ({"mask_id": VOCAB}, "vocabulary of 105"),
        ({"special_ids": (0, 200)}, "the same tokenizer"),
        ({"special_ids": (-1, 2)}, "the same tokenizer"),
        ({"vocab_size": 5}, "special tokens only"),
        ({"words": torch.zeros(2, 3)}, "(batch, seq)"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError) as told:
        mask_tokens(torch.full((2, 4), 7), rng(), **{**SETTING, **changes})
    assert message in str(told.value)


def test_ids_of_one_text_without_a_batch():
    with pytest.raises(ValueError, match="must be"):
        mask_tokens(torch.full((4,), 7), rng(), **SETTING)
