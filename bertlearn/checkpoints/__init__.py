"""Weights in and out: Hugging Face directories, and Google's TensorFlow checkpoints.

``Pretrained`` gives a model ``from_pretrained`` and ``save_pretrained``. Everything that stands
between a file and a model's parameters is in this folder: ``huggingface`` reads and writes the
files, ``tensorflow`` reads Google's without TensorFlow (``bundle`` knows that file format),
``names`` knows under which names the same tensor goes, ``pretrained`` puts them together.
"""

from bertlearn.checkpoints.errors import CheckpointError
from bertlearn.checkpoints.pretrained import (
    LoadReport,
    Pretrained,
    find_directory,
    shipped_models,
)

__all__ = ["CheckpointError", "LoadReport", "Pretrained", "find_directory", "shipped_models"]
