"""``from_pretrained`` and ``save_pretrained``: a folder becomes a model, a model a folder."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from bertlearn.checkpoints import huggingface, names, tensorflow
from bertlearn.checkpoints.errors import CheckpointError, few
from bertlearn.config import BertConfig

__all__ = ["LoadReport", "Pretrained", "find_directory", "shipped_models"]

_SHIPPED = Path(__file__).resolve().parents[1] / "models"


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
        kinds = ("loaded", "missing", "unexpected", "ignored")
        return f"{self.source.name}: " + ", ".join(f"{len(getattr(self, k))} {k}" for k in kinds)


class Pretrained:
    """Mixin of models that are made from a ``BertConfig`` and keep it as ``self.config``.

    A class that shares parameters between two places (a head and the token embeddings) defines
    ``tie_weights()``; it is called before and after loading. All tensors of a class are
    parameters or buffers. Of a class that takes ``id2label`` (names of labels) or
    ``classifier_dropout``, and keeps it under that name, it goes into ``config.json`` and back.

    Attributes:
        model_types: the values of ``model_type`` in a ``config.json`` that the class can hold;
            it is saved with the first.
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
            directory: a Hugging Face directory, one with Google's TensorFlow checkpoint, the name
                of a model that ships with the package, such as ``"bertlearn-mini-en"``, or of a
                data source that is one, such as ``"minilm"`` (fetched on first use).
            strict: refuse a file that lacks a parameter or has one too many.
            dtype: of the model's parameters; None keeps the file's.
            changes: fields of the config to change, and arguments of the class besides config,
                as in ``add_pooling_layer=False``.

        Warns:
            UserWarning: if a parameter is missing (a pooler, a head), or a tensor has no place.
                Heads that the model does not have are only listed in ``load_report``.

        Raises:
            CheckpointError: if the directory, its config or its weights are missing, damaged,
                or of another kind of model; if a tensor has another shape than its parameter;
                if a parameter of the embeddings or the encoder is missing.
            TypeError: for a change that neither config nor class knows.
        """
        config_changes, arguments = _sort_changes(cls, changes)
        path = find_directory(directory)
        config, tensors, source, fields = _read(path, config_changes, cls.model_types)
        arguments = {**_stored_arguments(cls, fields, changes, path), **arguments}
        model, report = _fill(cls, config, arguments, tensors, source, dtype)
        _tell(report, cls.__name__, strict)
        model.load_report = report
        return model.eval()

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, as transformers would.

        A failure on the way leaves the files that were there before. A parameter that two places
        share is written once. ``attn_implementation``, a choice at run time, is not written.
        """
        assert isinstance(self, nn.Module)
        directory = Path(directory)
        if directory.exists() and not directory.is_dir():
            raise CheckpointError(f"{directory} is a file: name a directory to save into")
        state = self.state_dict()
        doubles = {name for group in _shared(self) for name in group[1:]}
        config: BertConfig = self.config  # type: ignore[assignment]
        fields = {
            "architectures": [type(self).__name__],
            "model_type": self.model_types[0],
            "dtype": str(next(iter(state.values())).dtype).removeprefix("torch."),
            **config.to_dict(),
            **{name: getattr(self, name) for name in _STORED if hasattr(self, name)},
        }
        if "id2label" in fields:
            fields["label2id"] = {name: i for i, name in fields["id2label"].items()}
        huggingface.write_directory(
            directory, fields, {name: state[name] for name in state if name not in doubles}
        )


# ---------------------------------------------------------------- what is asked for
def find_directory(directory: str | Path) -> Path:
    """The folder of that path or, if there is none, of the model that ships with the package or
    the data source with that name.

    Raises:
        CheckpointError: if there is none.
    """
    path = Path(directory)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file: give the folder that holds it")
    from bertlearn.data import sources

    if str(directory) in shipped_models():
        return _SHIPPED / str(directory)
    if str(directory) in sources.SOURCES:
        return sources.fetch(str(directory))
    raise CheckpointError(
        f"there is no folder {path}: give the one that holds config.json and the weights, or a "
        f"model that ships with bertlearn ({', '.join(shipped_models()) or 'none'})"
    )


def shipped_models() -> list[str]:
    """The names of the models in ``bertlearn/models``."""
    return sorted(path.parent.name for path in _SHIPPED.glob("*/config.json"))


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


# ---------------------------------------------------------------- from the files
_STORED = ("id2label", "classifier_dropout")  # arguments of a head that config.json keeps


def _stored_arguments(
    cls: type, fields: dict[str, Any], changes: dict[str, Any], directory: Path
) -> dict[str, Any]:
    """Arguments of the class that ``config.json`` holds and that were not given."""
    known = inspect.signature(cls).parameters
    stored = {name: fields[name] for name in _STORED if name in known and name in fields}
    stored = {name: value for name, value in stored.items() if value is not None}
    if "num_labels" in changes:
        stored.pop("id2label", None)
    if "id2label" in stored:
        try:
            stored["id2label"] = {int(i): name for i, name in stored["id2label"].items()}
        except (AttributeError, ValueError):
            raise CheckpointError(
                f"the id2label of {directory / 'config.json'} must give each number a name, not "
                f"{stored['id2label']!r}"
            ) from None
    return stored


def _read(
    directory: Path, changes: dict[str, Any], model_types: tuple[str, ...]
) -> tuple[BertConfig, dict[str, Tensor], Path, dict[str, Any]]:
    """Config and tensors of a directory, the file that they came from, and what ``config.json``
    says."""
    config_files = [directory / name for name in ("config.json", "bert_config.json")]
    path = next((path for path in config_files if path.is_file()), None)
    if path is None:
        raise CheckpointError(f"there is no config.json in {directory}: copy the missing file")
    source = huggingface.find_weights(directory) or tensorflow.find_weights(directory)
    if source is None:
        raise CheckpointError(
            f"there are no weights in {directory}: expected model.safetensors, pytorch_model.bin, "
            f"or a TensorFlow checkpoint (.index and .data files)"
        )
    raw = huggingface.read_json(path)
    fields = huggingface.bert_fields(raw, path, model_types)
    if source.suffix == ".index":
        act = fields["hidden_act"]
        fields["hidden_act"] = tensorflow.ACTIVATIONS.get(act, act)
        tensors = tensorflow.read_bert(source)
    else:
        tensors = huggingface.read_weights(source)
    if raw.get("use_task_id"):
        names.fold_tasks(tensors)
    try:
        return BertConfig.from_dict({**fields, **changes}), tensors, source, raw
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a BERT: {error}") from None


# ---------------------------------------------------------------- into the model
def _fill(
    cls: type,
    config: BertConfig,
    arguments: dict[str, Any],
    tensors: dict[str, Tensor],
    source: Path,
    dtype: torch.dtype | None,
) -> tuple[Any, LoadReport]:
    """Make the model and copy the tensors into it."""
    with torch.device("meta"):  # names and shapes only: no memory, no random numbers
        model = cls(config, **arguments)
    _tie(model)
    found = names.match(model.state_dict(), tensors)
    missing = _missing(model, found.missing)
    if not found.pairs:
        raise CheckpointError(
            f"none of the {len(tensors)} tensors of {source} (such as {min(tensors, default='-')}) "
            f"belongs to a {cls.__name__}: it holds another kind of model"
        )
    _check_shapes(model, tensors, found, source)
    if missing or _has_constants(model):  # then initial values count
        model = cls(config, **arguments)
    else:
        model.to_empty(device="cpu")
    _tie(model)
    _copy(model.to(dtype or _widest(tensors)), tensors, found, source)
    _tie(model)
    report = LoadReport(
        source=source,
        loaded=[key for key in model.state_dict() if key not in missing],
        missing=missing,
        unexpected=found.unexpected,
        ignored=found.ignored,
    )
    return model, report


def _tie(model: nn.Module) -> None:
    """Share what the class shares."""
    tie = getattr(model, "tie_weights", None)
    if tie is not None:
        tie()


def _shared(model: nn.Module) -> list[list[str]]:
    """The names of each parameter that has more than one."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _missing(model: nn.Module, absent: list[str]) -> list[str]:
    """Of the names that a file lacks, those that it does not hold under another name either."""
    covered = {name for group in _shared(model) for name in group if not set(group) <= set(absent)}
    return [name for name in absent if name not in covered]


def _has_constants(model: nn.Module) -> bool:
    """Whether the model has tensors that it computes, rather than learns."""
    frozen = (parameter for parameter in model.parameters() if not parameter.requires_grad)
    return any(True for _ in frozen) or any(True for _ in model.buffers())


def _widest(tensors: dict[str, Tensor]) -> torch.dtype:
    """The floating point type among the tensors that has the most bits."""
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).bits, default=torch.float32)


def _check_shapes(
    model: nn.Module, tensors: dict[str, Tensor], found: names.Match, source: Path
) -> None:
    state = model.state_dict()
    for key, name in found.pairs.items():
        if tensors[name].shape != state[key].shape:
            raise CheckpointError(
                f"{key} has the shape {tuple(tensors[name].shape)} in {source} but "
                f"{tuple(state[key].shape)} in the model: config and weights do not belong together"
            )


@torch.no_grad()
def _copy(model: nn.Module, tensors: dict[str, Tensor], found: names.Match, source: Path) -> None:
    """Copy each tensor into its parameter; one that is shared or constant must agree."""
    for group in _shared(model):
        first, *others = [found.pairs[key] for key in group if key in found.pairs] or [""]
        for other in others:
            if not torch.equal(tensors[first], tensors[other]):
                raise CheckpointError(
                    f"{first} and {other} differ in {source}, but {type(model).__name__} shares "
                    f"one parameter between them"
                )
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    state = model.state_dict()
    for key, name in found.pairs.items():
        if key not in frozen:
            state[key].copy_(tensors[name])
        elif (state[key] - tensors[name]).abs().max() > 0.01 * state[key].abs().max():
            raise CheckpointError(
                f"{key} in {source} is not the table that the model computes by its formula: if it "
                f"was learned, position_embedding_type must be 'absolute'"
            )


# ---------------------------------------------------------------- what there is to say
def _tell(report: LoadReport, model: str, strict: bool) -> None:
    """Warn of what did not fit, or refuse it."""

    def among(keys: list[str], prefixes: Iterable[str]) -> list[str]:
        return [key for key in keys if names.canonical(key).startswith(tuple(prefixes))]

    core = among(report.missing, ("embeddings.", "encoder."))
    if core:
        raise CheckpointError(
            f"{report.source} lacks {few(core)}: a {model} of this config cannot do without"
        )
    if strict and (report.missing or report.unexpected):
        raise CheckpointError(
            f"{report.source} does not fit {model} exactly: missing {few(report.missing)}; "
            f"unexpected {few(report.unexpected)}"
        )
    if report.missing:
        warnings.warn(
            f"{report.source.name} does not hold {few(report.missing)} of {model}: it starts from "
            f"random values and wants training",
            stacklevel=3,
        )
    heads = among(report.unexpected, names.HEADS)
    odd = [key for key in report.unexpected if key not in heads]
    if odd:
        warnings.warn(
            f"{model} has no place for {few(odd)} of {report.source.name}: left out", stacklevel=3
        )
