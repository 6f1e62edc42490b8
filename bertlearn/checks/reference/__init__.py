"""Numbers that transformers computed once, frozen, so that checks need no transformers.

``minilm.json`` (beside this file; ``minilm()`` reads it) holds what transformers' ``BertModel``
gives for a few sentences with the weights of the source "minilm", in fp32, one sentence at a time,
without padding. Made by tests/fixtures/make_minilm_reference.py. For each sentence:

- ``text`` and ``pair`` (null if there is none), ``ids`` and ``type_ids`` with [CLS] and [SEP];
- ``cls``: the first 8 numbers of [CLS] after the embeddings and after each of 6 layers (7 x 8);
- ``pooler``: the first 8 numbers of ``pooler_output``;
- ``mean``: the first 8 numbers of the mean over all tokens of the last layer, not normalized;
- ``norm``: the length of that mean vector, all 384 numbers.

The numbers have 7 decimals; ``tolerance`` (1e-5) is what an encoder in fp32 must keep to.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

__all__ = ["minilm"]


def minilm() -> dict[str, Any]:
    """The reference for MiniLM: ``tolerance``, ``transformers`` (its version), ``sentences``."""
    return json.loads(resources.files(__name__).joinpath("minilm.json").read_text("utf-8"))
