"""``from_pretrained`` and ``save_pretrained``: a folder becomes a model, a model a folder."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from bertlearn.checkpoints import huggingface
from bertlearn.checkpoints.errors import CheckpointError
from bertlearn.checkpoints.names import HEADS, canonical, match
from bertlearn.config import BertConfig

__all__ = ["LoadReport", "Pretrained"]


@dataclass
class LoadReport:
    """What became of each tensor when a model was loaded; kept as ``model.load_report``.

    Attributes:
        source: the file that was read.
        loaded: the model's parameters that came from it.
        missing: the model's parameters that it does not hold; they are freshly initialized.
        unexpected: its tensors for which the model has no place.
        ignored: its tensors that are constants and never needed.
    """

    source: Path
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = (f"{len(getattr(self, name))} {name}" for name in _LISTS)
        return f"{self.source.name}: " + ", ".join(counts)


_LISTS = ("loaded", "missing", "unexpected", "ignored")


class Pretrained:
    """Mixin of models that are made from a ``BertConfig`` and keep it as ``self.config``.

    A class that shares parameters between two places (a head and the token embeddings) defines
    ``tie_weights()``; it is called before and after loading.

    Attributes:
        model_types: the values of ``model_type`` in a ``config.json`` that the class can hold.
        load_report: what became of each tensor, after ``from_pretrained``; else None.
    """

    model_types: tuple[str, ...] = ("bert", "ernie")
    load_report: LoadReport | None = None

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        strict: bool = False,
        dtype: torch.dtype | None = torch.float32,
        **changes: Any,
    ) -> Self:
        """Make the model that a directory describes, with its weights, in evaluation mode.

        Args:
            directory: a Hugging Face directory, or one with Google's TensorFlow checkpoint.
            strict: refuse a file that lacks a parameter or has one too many.
            dtype: of the model's parameters; None keeps the file's.
            changes: fields of the config to change, and arguments of the class besides config,
                as in ``add_pooling_layer=False``.

        Raises:
            CheckpointError: if the directory, its config or its weights are missing, damaged,
                or of another kind of model; if a tensor has another shape than its parameter;
                if a parameter of the encoder is missing.
            TypeError: for a change that neither config nor class knows.
        """
        directory = _directory(directory)
        config_changes, arguments = _sort_changes(cls, changes)
        config, tensors, source = _read(directory, config_changes, cls.model_types)
        model = cls(config, **arguments)  # type: ignore[call-arg]
        assert isinstance(model, nn.Module)
        model.to(dtype or _common_dtype(tensors))
        report = _load(model, tensors, source)
        _tell(report, cls.__name__, strict)
        model.load_report = report  # type: ignore[assignment]
        return model.eval()

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, as transformers would.

        A failure on the way leaves the files that were there before. Parameters that two places
        share are written once.
        """
        assert isinstance(self, nn.Module)
        directory = Path(directory)
        if directory.exists() and not directory.is_dir():
            raise CheckpointError(f"{directory} is a file: name a directory to save into")
        kept: dict[str, Tensor] = {}
        for names in _shared(self).values():
            kept[names[0]] = self.state_dict()[names[0]]
        config: BertConfig = self.config  # type: ignore[assignment]
        huggingface.write_directory(directory, config.to_dict(), kept, type(self).__name__)


def _directory(directory: str | Path) -> Path:
    path = Path(directory)
    if not path.exists():
        raise CheckpointError(
            f"there is no directory {path}: give the folder that holds config.json and weights"
        )
    if not path.is_dir():
        raise CheckpointError(f"{path} is a file: give the folder that holds it")
    return path


def _sort_changes(cls: type, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which changes are the config's, which the class's."""
    fields = {field.name for field in dataclasses.fields(BertConfig)}
    arguments = set(inspect.signature(cls).parameters) - {"config"}
    unknown = sorted(set(changes) - fields - arguments)
    if unknown:
        raise TypeError(
            f"{cls.__name__}.from_pretrained does not know {', '.join(unknown)}: it takes fields "
            f"of BertConfig" + "".join(f", {name}" for name in sorted(arguments))
        )
    return (
        {name: value for name, value in changes.items() if name in fields},
        {name: value for name, value in changes.items() if name not in fields},
    )


def _read(
    directory: Path, changes: dict[str, Any], model_types: tuple[str, ...]
) -> tuple[BertConfig, dict[str, Tensor], Path]:
    """Config and tensors of a directory, and the file that they came from."""
    source = huggingface.find_weights(directory)
    path = directory / "config.json"
    if not path.is_file():
        raise CheckpointError(f"there is no config.json in {directory}")
    if source is None:
        raise CheckpointError(
            f"there are no weights in {directory}: expected {huggingface.SAFETENSORS} or "
            f"{huggingface.PICKLE}"
        )
    fields = huggingface.bert_fields(huggingface.read_json(path), path, model_types)
    try:
        config = BertConfig.from_dict({**fields, **changes})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    return config, huggingface.read_weights(source), source


def _common_dtype(tensors: dict[str, Tensor]) -> torch.dtype:
    """The widest floating point type among the tensors."""
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).bits, default=torch.float32)


def _shared(model: nn.Module) -> dict[tuple[int, torch.Size], list[str]]:
    """The names of the state dict, those that share memory together."""
    groups: dict[tuple[int, torch.Size], list[str]] = {}
    for name, tensor in model.state_dict().items():
        groups.setdefault((tensor.data_ptr(), tensor.shape), []).append(name)
    return groups


def _tie(model: nn.Module) -> None:
    tie = getattr(model, "tie_weights", None)
    if tie is not None:
        tie()


@torch.no_grad()
def _load(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> LoadReport:
    """Copy the tensors into the model's parameters."""
    _tie(model)
    parameters = model.state_dict()
    found = match(parameters, tensors)
    if not found.pairs:
        raise CheckpointError(
            f"none of the {len(tensors)} tensors of {source} (such as {min(tensors, default='?')}) "
            f"belongs to {type(model).__name__}: it holds another kind of model"
        )
    for key, name in found.pairs.items():
        if tensors[name].shape != parameters[key].shape:
            raise CheckpointError(
                f"{key} has shape {tuple(tensors[name].shape)} in {source} but "
                f"{tuple(parameters[key].shape)} in the model: its config is of another checkpoint"
            )
        parameters[key].copy_(tensors[name])
    missing = set(found.missing)
    for names in _shared(model).values():  # one of them in the file is enough
        if not missing.issuperset(names):
            missing -= set(names)
    _tie(model)
    return LoadReport(
        source=source,
        loaded=[key for key in parameters if key not in missing],
        missing=[key for key in parameters if key in missing],
        unexpected=found.unexpected,
        ignored=found.ignored,
    )


def _tell(report: LoadReport, model: str, strict: bool) -> None:
    """Warn of what did not fit, or refuse it."""
    few = huggingface._few
    odd = [key for key in report.unexpected if not canonical(key).startswith(HEADS)]
    core = [key for key in report.missing if canonical(key).startswith(("embeddings.", "encoder."))]
    if core:
        raise CheckpointError(f"{report.source} lacks {few(core)}, which {model} needs")
    if strict and (report.missing or report.unexpected):
        raise CheckpointError(
            f"{report.source} does not fit {model} exactly: missing are "
            f"{few(report.missing) or 'none'}, unexpected are {few(report.unexpected) or 'none'}"
        )
    if report.missing:
        warnings.warn(
            f"{report.source.name} has no {few(report.missing)}: these start from random values "
            f"and want training",
            stacklevel=3,
        )
    if odd:
        warnings.warn(
            f"{model} has no place for {few(odd)} of {report.source.name}: left out",
            stacklevel=3,
        )
