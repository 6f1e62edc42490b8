"""One tensor, many names: what different files call the parameters of the same BERT."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from bertlearn.checkpoints.errors import CheckpointError

__all__ = ["HEADS", "Match", "canonical", "fold_tasks", "match"]

WRAPPERS = ("module.", "_orig_mod.")  # added by DataParallel and by torch.compile
BASES = ("bert.", "roberta.", "ernie.")  # under which a model with a head keeps its encoder
STRAYS = ("embeddings.position_ids", "embeddings.token_type_ids")  # constants, once saved along
HEADS = ("cls.", "classifier.", "qa_outputs.", "lm_head.", "sop_classifier.", "pooler.")
ERNIE_TASKS = "embeddings.task_type_embeddings.weight"


def canonical(key: str) -> str:
    """The name of a parameter without wrappers and base, in today's spelling.

    ``module.bert.embeddings.LayerNorm.gamma`` becomes ``embeddings.LayerNorm.weight``.
    """
    while key.startswith(WRAPPERS):
        key = key.split(".", 1)[1]
    if key.startswith(BASES):
        key = key.split(".", 1)[1]
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if key.endswith(old):
            key = key.removesuffix(old) + new
    return key


@dataclass
class Match:
    """How the names of a file and of a model meet.

    Attributes:
        pairs: the model's name to the file's.
        missing: the model's names that the file does not have.
        unexpected: the file's names that the model does not have.
        ignored: the file's names of constants that no model needs.
    """

    pairs: dict[str, str]
    missing: list[str]
    unexpected: list[str]
    ignored: list[str]


def match(model_keys: Iterable[str], file_keys: Iterable[str]) -> Match:
    """Find for each parameter of a model its tensor in a file.

    Raises:
        CheckpointError: if the file has a parameter twice, under two names.
    """
    wanted = {canonical(key): key for key in model_keys}
    found = Match({}, [], [], [])
    for key in sorted(file_keys):
        name = canonical(key)
        if name in STRAYS or (name == ERNIE_TASKS and name not in wanted):
            found.ignored.append(key)
        elif name not in wanted:
            found.unexpected.append(key)
        elif wanted[name] in found.pairs:
            raise CheckpointError(
                f"the file holds {name} twice, as {found.pairs[wanted[name]]} and as {key}: "
                f"keep one of them"
            )
        else:
            found.pairs[wanted[name]] = key
    found.missing = [key for key in wanted.values() if key not in found.pairs]
    return found


def fold_tasks(tensors: dict[str, Tensor]) -> None:
    """Add ERNIE's vector of task 0, which every token gets, to the segment vectors, in place.

    The sum of a token's embeddings stays the same; BERT has no task table.
    """
    by_name = {canonical(key): key for key in tensors}
    segments = by_name.get("embeddings.token_type_embeddings.weight")
    tasks = by_name.get(ERNIE_TASKS)
    if segments is None or tasks is None:
        raise CheckpointError("the config asks for task embeddings, but the weights hold none")
    tensors[segments] = tensors[segments] + tensors[tasks][0]
