"""Human ratings: 50 texts, each pair rated once, texts and ratings as in the source.

The source is fetched once (23 MB); without it these tests are skipped, loudly.

Run: python -m pytest tests/test_similarity.py
"""

from __future__ import annotations

import pytest

from bertlearn.data import sources
from bertlearn.data.errors import DataError
from bertlearn.data.similarity import RatedTexts, lee, rated


@pytest.fixture(scope="module")
def found() -> RatedTexts:
    try:
        return lee()
    except sources.SourceError as error:
        pytest.skip(f"THE HUMAN RATINGS WERE NOT TESTED: {error}")


def test_every_pair_is_rated_once(found):
    assert len(found.texts) == 50 and all(len(text) > 200 for text in found.texts)
    assert len(set(found.pairs)) == len(found.pairs) == len(found.ratings) == 1225
    assert all(i < j for i, j in found.pairs)
    assert 0.19 < min(found.ratings) < max(found.ratings) <= 1
    assert sum(found.ratings) / 1225 == pytest.approx(0.3265, abs=1e-4)


def test_ratings_belong_to_their_texts(found):
    """The first text's highest rating is with one on the same news; the pound sign is read."""
    rating = dict(zip(found.pairs, found.ratings, strict=True))
    partner = max((j for i, j in found.pairs if i == 0), key=lambda j: rating[0, j])
    assert partner == 13 and rating[0, partner] == 1
    assert "Brian Greig" in found.texts[0] and "Brian Greig" in found.texts[partner]
    assert any("£3,000" in text for text in found.texts)


def test_a_table_of_another_size_is_refused():
    with pytest.raises(DataError, match="2 texts need a table of 2 by 2 ratings, not 1 rows"):
        rated(["a", "b"], [[1.0, 0.5]])
