"""Hugging Face directories: ``config.json`` with ``model.safetensors`` or ``pytorch_model.bin``."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertlearn.checkpoints.errors import CheckpointError, few

__all__ = ["bert_fields", "find_weights", "read_json", "read_weights", "write_directory"]

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
INDEX = ".index.json"  # after either name: a list of the files into which it was cut

# Names under which the same function goes; "gelu_fast" is the tanh formula, reordered.
ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "relu": "relu",
}
# Our own choice at run time, not a property of the weights: neither read nor written.
RUN_TIME = ("attn_implementation",)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        CheckpointError: if it holds anything else.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}): copy it again") from None
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(fields).__name__}")
    return fields


def bert_fields(fields: dict[str, Any], path: Path, model_types: tuple[str, ...]) -> dict[str, Any]:
    """Translate a ``config.json`` into fields of ``BertConfig``, refusing what it cannot express.

    Args:
        fields: the parsed file.
        path: where it was, for messages.
        model_types: the values of ``model_type`` that the model can hold.

    Raises:
        CheckpointError: for another kind of model, or a feature that would change its output.
    """

    def refuse(name: str, expected: str) -> None:
        raise CheckpointError(
            f"{path} says {name} = {given[name]!r}, but this model can only be {expected}"
        )

    given = {key: x for key, x in fields.items() if x is not None and key not in RUN_TIME}

    if given.get("model_type", model_types[0]) not in model_types:
        refuse("model_type", " or ".join(map(repr, model_types)))
    for name in ("is_decoder", "add_cross_attention", "quantization_config", "pruned_heads"):
        if given.get(name):
            refuse(name, "a plain encoder without it")
    if given.get("position_embedding_type", "absolute") not in ("absolute", "sinusoidal"):
        refuse("position_embedding_type", "'absolute' or 'sinusoidal'")
    if given.get("embedding_size", given.get("hidden_size")) != given.get("hidden_size"):
        refuse("embedding_size", f"as wide as hidden_size = {given.get('hidden_size')}")
    act = str(given.get("hidden_act", "gelu"))
    if act not in ACTIVATION_NAMES:
        refuse("hidden_act", f"one of {', '.join(ACTIVATION_NAMES)}")
    return {**given, "hidden_act": ACTIVATION_NAMES[act]}


def find_weights(directory: Path) -> Path | None:
    """The weights of a directory, safetensors first; None if it has none."""
    for name in (SAFETENSORS, SAFETENSORS + INDEX, PICKLE, PICKLE + INDEX):
        if (directory / name).is_file():
            return directory / name
    return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, on the CPU.

    Args:
        path: a ``.safetensors`` or ``.bin`` file, or the ``.index.json`` of one that was cut.

    Raises:
        CheckpointError: if a file is missing, cut short, or not what its name says.
    """
    if not path.name.endswith(INDEX):
        return _read_file(path)
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has no weight_map: it does not list any weights")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{path} points outside its folder, to {name!r}")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        tensors |= _read_file(path.with_name(name))
    lost = sorted(set(weight_map) - set(tensors))
    if lost:
        raise CheckpointError(f"{path} lists {few(lost)}, but its files do not hold it")
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    """One file of weights."""
    if not path.is_file():
        raise CheckpointError(f"there is no {path.name} in {path.parent}: copy the missing file")
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise CheckpointError(
                f"{path} is a git-lfs pointer, not the weights: fetch them with git lfs pull"
            )
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    tensors = read(path)
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() and "_ids" not in key and "num_batches" not in key:
            raise CheckpointError(
                f"{key} in {path} has dtype {tensor.dtype}, not floating point: quantized weights "
                f"cannot be loaded"
            )
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}): copy it again") from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} is damaged, or holds Python objects besides tensors, which are not loaded "
            f"because they could run code: save its state_dict again"
        ) from None
    except Exception as error:  # a pickle that is cut short can fail anywhere in its reader
        reason = str(error).split("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is damaged or cut short ({reason}): copy it again") from None
    if not isinstance(tensors, dict) or not all(isinstance(x, Tensor) for x in tensors.values()):
        raise CheckpointError(f"{path} must hold a flat state_dict of tensors: save that")
    return tensors


def write_directory(directory: Path, fields: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write ``config.json`` and ``model.safetensors`` so that a failure leaves nothing half done.

    Both files are complete before either takes its name. Other files of the directory stay.

    Args:
        directory: made if it is not there.
        fields: of ``config.json``.
        tensors: the weights; none may share memory with another.
    """
    from safetensors.torch import save_file

    kept = {key: value for key, value in fields.items() if key not in RUN_TIME}
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / f".unfinished-{os.getpid()}-{threading.get_ident()}"
    unfinished.mkdir()
    config, weights = unfinished / "config.json", unfinished / SAFETENSORS
    try:
        config.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        save_file(contiguous, weights, metadata={"format": "pt"})
        shutil.copymode(config, weights)  # the library makes it readable by its owner only
        for path in (weights, config):
            os.replace(path, directory / path.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
