"""bertlearn: BERT, built chapter by chapter. Import what you need; nothing heavy loads before."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "BertConfig": "config",
    "BertForMaskedLM": "model",
    "BertForPreTraining": "model",
    "BertForQuestionAnswering": "model",
    "BertForSequenceClassification": "model",
    "BertForTokenClassification": "model",
    "BertModel": "model",
    "BertTokenizer": "tokenization",
}
__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "BertTokenizer",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"bertlearn.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bertlearn' has no attribute {name!r}")
