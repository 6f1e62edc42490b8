"""Which tokens continue a word: of pieces by their ``##``, of Chinese characters by jieba's words.

BERT's tokenizer makes a token of each Chinese character. What a word is, where none are set apart
by blanks, is a matter of opinion; here it is that of jieba, as in the Chinese models with whole
word masking (Cui et al. 2019, who used another segmenter).
"""

from __future__ import annotations

import functools
import re
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertlearn.data.errors import DataError
from bertlearn.tokenization import is_chinese

__all__ = ["CHINESE_SHARE", "chinese_continues", "is_chinese_text", "jieba_words"]

# A text counts as Chinese from this share of Chinese characters on. What is below (the name of a
# city in an English article) has no word borders, so English texts need no jieba.
CHINESE_SHARE = 0.2

_HAN = re.compile(
    r"[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f"
    r"\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f]"
)


def is_chinese_text(text: str) -> bool:
    """Whether a text is Chinese enough to be cut into Chinese words."""
    if text.isascii():
        return False
    return len(_HAN.findall(text)) >= CHINESE_SHARE * max(len(text), 1)


def jieba_words(text: str) -> list[str]:
    """A text cut into words by jieba; joined they are the text.

    Raises:
        DataError: if jieba is not installed.
    """
    return _jieba().lcut(text)


@functools.cache
def _jieba() -> Any:
    """jieba with its own dictionary, read anew: a cache in a shared folder might be anyone's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own old-fashioned source code
        try:
            import jieba
        except ImportError:
            raise DataError(
                "Chinese text is cut into words by the library jieba, which is not installed: "
                "python -m pip install jieba==0.42.1"
            ) from None
    jieba.setLogLevel("ERROR")
    cutter = jieba.Tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        cutter.tmp_dir = folder
        cutter.initialize()
    return cutter


def chinese_continues(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """For each token of a Chinese text whether it continues the word of the token before it.

    It does if both are Chinese characters of one word. All else is decided by the pieces.

    Args:
        text: one sentence.
        offsets: start and end of each token in it.

    Returns:
        bool, (tokens,).
    """
    inside = np.zeros(len(text) + 1, bool)  # not the first character of a word, but Chinese
    place = 0
    for word in jieba_words(text):
        for index in range(place + 1, place + len(word)):
            inside[index] = is_chinese(text[index]) and is_chinese(text[index - 1])
        place += len(word)
    return inside[[start for start, _ in offsets]]
