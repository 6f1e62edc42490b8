"""Google's checkpoints of BERT (google-research/bert), under the names of this package.

Three things differ from PyTorch's. A dense layer's ``kernel`` is ``(in, out)``, PyTorch's weight
``(out, in)``. LayerNorm's parameters are called gamma and beta. And Google's "gelu" is the tanh
formula, up to 0.0005 away from the exact one, so it becomes "gelu_new" here. (transformers
computes the exact one with the same weights; ``hidden_act="gelu"`` does so too.)
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from bertlearn.checkpoints.bundle import read_index, read_tensors
from bertlearn.checkpoints.errors import CheckpointError

__all__ = ["ACTIVATIONS", "bert_name", "find_weights", "read_bert"]

ACTIVATIONS = {"gelu": "gelu_new"}
OPTIMIZER = re.compile(r"(^|/)(adam_[mv]|lamb_[mv]|global_step|beta[12]_power)$")
# Matrices of the heads lie as PyTorch's do and have names of their own.
HEADS = {
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
    "cls/squad/output_weights": "qa_outputs.weight",
    "cls/squad/output_bias": "qa_outputs.bias",
    "output_weights": "classifier.weight",
    "output_bias": "classifier.bias",
}
LAST = {"kernel": "weight", "gamma": "weight", "beta": "bias"}


def find_weights(directory: Path) -> Path | None:
    """The ``.index`` file of a directory's checkpoint; None if it has none.

    Of several it is the newest by the text file ``checkpoint``, else ``bert_model.ckpt``.

    Raises:
        CheckpointError: if there are several and neither settles it.
    """
    found = {path.stem: path for path in sorted(directory.glob("*.index"))}
    state = directory / "checkpoint"
    text = state.read_text(encoding="utf-8", errors="replace") if state.is_file() else ""
    newest = re.search(r'^model_checkpoint_path:\s*"(.*)"', text, flags=re.MULTILINE)
    for name in (Path(newest[1]).name if newest else "", "bert_model.ckpt"):
        if name in found:
            return found[name]
    if len(found) > 1:
        raise CheckpointError(
            f"{directory} holds several checkpoints ({', '.join(found)}): put one into a folder"
        )
    return next(iter(found.values()), None)


def bert_name(name: str) -> str:
    """This package's name of a TensorFlow variable.

    ``bert/encoder/layer_0/output/dense/kernel`` becomes
    ``bert.encoder.layer.0.output.dense.weight``.
    """
    if name in HEADS:
        return HEADS[name]
    *path, last = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name).split("/")
    if last.endswith("_embeddings"):
        path, last = [*path, last], "weight"
    return ".".join([*path, LAST.get(last, last)])


def read_bert(path: Path) -> dict[str, Tensor]:
    """All parameters of a checkpoint, without the optimizer's.

    Args:
        path: the ``.index`` file.

    Raises:
        CheckpointError: as ``bundle.read_tensors``; or if it is a Keras checkpoint, whose names
            follow the objects of a program.
    """
    names = [name for name in read_index(path)[0] if not OPTIMIZER.search(name)]
    if any("/.ATTRIBUTES/" in name for name in names):
        raise CheckpointError(
            f"{path} was saved by Keras, which names tensors after the program's objects: only "
            f"checkpoints of google-research/bert can be read"
        )
    tensors = read_tensors(path, names)
    return {
        bert_name(name): tensor.T.contiguous() if name.endswith("/kernel") else tensor
        for name, tensor in tensors.items()
    }
