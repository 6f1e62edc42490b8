"""Weights in and out: what is proved here.

Every spelling of the same weights (prefixes, gamma and beta, stray buffers, cut into several files,
pickled) loads to the same numbers; shared parameters stay shared; what is missing or left over is
told, what is damaged or foreign is refused in one sentence; saving is complete or does not happen;
Google's TensorFlow files are read bit for bit (the fixture was written by TensorFlow, and the
numbers to reach were computed by it: tests/fixtures/make_tf_bert.py).

    pytest tests/test_checkpoints.py
"""

import functools
import hashlib
import json
import pickle
import re
import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from bertlearn.checkpoints import CheckpointError, Pretrained, bundle, names, tensorflow
from bertlearn.config import BertConfig
from bertlearn.embeddings import sinusoidal_positions
from bertlearn.encoder import ACTIVATIONS
from bertlearn.model import BertModel

TF_BERT = Path(__file__).parent / "fixtures" / "tf_bert"
TINY = BertConfig(
    vocab_size=31,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=10,
)
IDS = torch.tensor([[2, 7, 30, 1, 3]])


def write(folder, tensors, config=None, file="model.safetensors", **fields):
    """A Hugging Face directory with these tensors."""
    folder.mkdir(exist_ok=True)
    config = {**(config or TINY.to_dict()), "model_type": "bert", **fields}
    (folder / "config.json").write_text(json.dumps(config))
    if file.endswith(".safetensors"):
        save_file(tensors, folder / file)
    else:
        torch.save(tensors, folder / file)
    return folder


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = BertModel(TINY).eval()
    for parameter in model.parameters():  # LayerNorms and biases must count as well
        nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture
def tensors(model):
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


@pytest.fixture
def folder(tmp_path, tensors):
    return write(tmp_path / "bert", tensors)


def same(got, want):
    got, want = got.state_dict(), want.state_dict()
    assert list(got) == list(want)
    for key in want:
        assert torch.equal(got[key], want[key]), key


def quiet(call, *args, **kwargs):
    """The call's result, where a warning is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call(*args, **kwargs)


def refused(*fragments, folder, cls=BertModel, **changes):
    """Loading fails with one sentence that has all of the fragments."""
    with pytest.raises(CheckpointError) as caught:
        cls.from_pretrained(folder, **changes)
    message = str(caught.value)
    for fragment in fragments:
        assert fragment in message, message
    assert "\n" not in message and len(message) < 500


class Heads(Pretrained, nn.Module):
    """A stand-in for the models with pre-training heads: encoder under ``bert.``, tied decoder."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.bert = BertModel(config)
        self.cls = nn.Module()
        self.cls.predictions = predictions = nn.Module()
        predictions.transform = nn.Module()
        predictions.transform.dense = nn.Linear(config.hidden_size, config.hidden_size)
        predictions.transform.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        predictions.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        predictions.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.cls.seq_relationship = nn.Linear(config.hidden_size, 2)
        self.tie_weights()

    def tie_weights(self):
        self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
        self.cls.predictions.decoder.bias = self.cls.predictions.bias

    def forward(self, *inputs):
        out = self.bert(*inputs)
        head = self.cls.predictions
        act = ACTIVATIONS[self.config.hidden_act]
        told = head.transform.LayerNorm(act(head.transform.dense(out.last_hidden_state)))
        return head.decoder(told), self.cls.seq_relationship(out.pooler_output)

    def is_tied(self):
        head = self.cls.predictions
        return (
            head.decoder.weight is self.bert.embeddings.word_embeddings.weight
            and head.decoder.weight.data_ptr()
            == self.bert.embeddings.word_embeddings.weight.data_ptr()
            and head.decoder.bias.data_ptr() == head.bias.data_ptr()
        )


TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")


@pytest.fixture
def heads():
    torch.manual_seed(1)
    heads = Heads(TINY).eval()
    for parameter in heads.parameters():
        nn.init.normal_(parameter, std=0.5)
    return heads


# ---------------------------------------------------------------- the same weights, spelled anew
def test_reads_its_own_directory(model, tmp_path):
    model.save_pretrained(tmp_path / "a")
    loaded = quiet(BertModel.from_pretrained, tmp_path / "a", strict=True)
    same(loaded, model)
    assert loaded.config == TINY
    assert not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())
    report = loaded.load_report
    assert report.source == tmp_path / "a" / "model.safetensors"
    assert report.loaded == list(model.state_dict())
    assert str(report) == "model.safetensors: 39 loaded, 0 missing, 0 unexpected, 0 ignored"
    assert torch.equal(loaded(IDS).pooler_output, model(IDS).pooler_output)


@pytest.mark.parametrize(
    "prefix", ["bert.", "module.", "module.bert.", "roberta.", "ernie.", "_orig_mod.module."]
)
def test_prefixes(prefix, model, tensors, tmp_path):
    write(tmp_path / "a", {prefix + key: tensor for key, tensor in tensors.items()})
    same(quiet(BertModel.from_pretrained, tmp_path / "a", strict=True), model)


def test_gamma_and_beta(model, tensors, tmp_path):
    def old(key):
        return key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )

    renamed = {old(key): tensor for key, tensor in tensors.items()}
    assert sum("gamma" in key for key in renamed) == 5
    same(quiet(BertModel.from_pretrained, write(tmp_path / "a", renamed), strict=True), model)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["module.", "_orig_mod."]), max_size=3),
    st.sampled_from(["", "bert.", "roberta.", "ernie."]),
    st.booleans(),
)
def test_every_spelling_means_the_same_parameter(wrappers, base, old):
    for key in ("embeddings.LayerNorm.weight", "encoder.layer.11.attention.output.LayerNorm.bias"):
        spelled = key
        if old:
            spelled = key.replace(".weight", ".gamma").replace(".bias", ".beta")
        assert names.canonical("".join(wrappers) + base + spelled) == key


def test_stray_buffers_are_ignored(model, tensors, tmp_path):
    tensors["embeddings.position_ids"] = torch.arange(10)[None]
    tensors["embeddings.token_type_ids"] = torch.zeros(1, 10, dtype=torch.long)
    loaded = quiet(BertModel.from_pretrained, write(tmp_path / "a", tensors), strict=True)
    same(loaded, model)
    assert loaded.load_report.ignored == ["embeddings.position_ids", "embeddings.token_type_ids"]


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_cut_into_several_files(kind, model, tensors, tmp_path):
    first = {key: tensor for key, tensor in tensors.items() if "embeddings" in key}
    second = {key: tensor for key, tensor in tensors.items() if key not in first}
    stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
    parts = [f"{stem}-0000{n}-of-00002.{kind}" for n in (1, 2)]
    write(tmp_path / "a", first, file=parts[0])
    write(tmp_path / "a", second, file=parts[1])
    weight_map = {key: parts[key in second] for key in tensors}
    index = tmp_path / "a" / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    same(quiet(BertModel.from_pretrained, tmp_path / "a", strict=True), model)

    (tmp_path / "a" / parts[1]).unlink()
    refused(parts[1], "missing file", folder=tmp_path / "a")
    index.write_text(json.dumps({"weight_map": {"x": "../secret.bin"}}))
    refused("outside its folder", folder=tmp_path / "a")
    index.write_text(json.dumps({"weight_map": {"encoder.x": parts[0]}}))
    refused("lists encoder.x", "do not hold it", folder=tmp_path / "a")


def test_safetensors_come_before_pickles(model, tensors, tmp_path):
    write(
        tmp_path / "a",
        {key: tensor * 0 for key, tensor in tensors.items()},
        file="pytorch_model.bin",
    )
    assert not BertModel.from_pretrained(tmp_path / "a").embeddings.word_embeddings.weight.any()
    write(tmp_path / "a", tensors)
    same(BertModel.from_pretrained(tmp_path / "a"), model)


def test_pickles_of_before_torch_1_6(model, tensors, folder):
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    same(BertModel.from_pretrained(folder), model)
    whole = path.read_bytes()
    for keep in (5, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        refused("pytorch_model.bin is damaged", folder=folder)


def test_pickles_run_no_code(tmp_path, folder):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "ran").touch, ())

    (folder / "model.safetensors").unlink()
    torch.save({"x": Trap()}, folder / "pytorch_model.bin")
    refused("could run code", folder=folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Trap()}, protocol=2))
    refused("could run code", folder=folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(stored, model, tensors, tmp_path):
    write(tmp_path / "a", {key: tensor.to(stored) for key, tensor in tensors.items()})
    cast = BertModel.from_pretrained(tmp_path / "a")
    kept = BertModel.from_pretrained(tmp_path / "a", dtype=None)
    assert {p.dtype for p in cast.parameters()} == {torch.float32}
    assert {p.dtype for p in kept.parameters()} == {stored}
    for key, parameter in kept.state_dict().items():
        assert torch.equal(parameter, tensors[key].to(stored))
        assert torch.equal(cast.state_dict()[key], tensors[key].to(stored).float())


def test_loading_draws_no_random_numbers(folder):
    torch.manual_seed(3)
    want = torch.rand(3)
    torch.manual_seed(3)
    BertModel.from_pretrained(folder)
    assert torch.equal(torch.rand(3), want)


def test_loading_twice_gives_models_of_their_own(folder):
    one, two = BertModel.from_pretrained(folder), BertModel.from_pretrained(folder)
    with torch.no_grad():
        one.pooler.dense.weight.zero_()
    assert two.pooler.dense.weight.any()


def test_a_source_goes_by_its_name(folder, monkeypatch):
    from bertlearn.data import sources

    monkeypatch.setattr(sources, "fetch", lambda name: {"minilm": folder}[name])
    assert BertModel.from_pretrained("minilm").config == TINY


# ---------------------------------------------------------------- missing and left over
def test_a_missing_pooler_is_told(model, tensors, tmp_path):
    part = {key: tensor for key, tensor in tensors.items() if "pooler" not in key}
    write(tmp_path / "a", part)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="does not hold pooler.dense.weight, pooler.dense.bias"):
        loaded = BertModel.from_pretrained(tmp_path / "a")
    assert loaded.load_report.missing == ["pooler.dense.weight", "pooler.dense.bias"]
    assert 0.01 < loaded.pooler.dense.weight.std() < 0.03  # initialized, not left as memory was
    assert not loaded.pooler.dense.bias.any()
    refused("missing pooler.dense.weight", folder=tmp_path / "a", strict=True)
    without = quiet(BertModel.from_pretrained, tmp_path / "a", add_pooling_layer=False, strict=True)
    assert without.pooler is None
    assert without(IDS).pooler_output is None


def test_a_missing_layer_is_refused(tensors, tmp_path):
    part = {key: tensor for key, tensor in tensors.items() if "layer.1" not in key}
    refused("lacks encoder.layer.1.", "and 13 more", folder=write(tmp_path / "a", part))


def test_more_layers_than_the_file_has_are_refused(folder):
    refused("lacks encoder.layer.2.", folder=folder, num_hidden_layers=3)


def test_fewer_layers_are_told(model, folder):
    with pytest.warns(UserWarning, match=r"no place for encoder\.layer\.1\..* and 13 more"):
        loaded = BertModel.from_pretrained(folder, num_hidden_layers=1)
    assert len(loaded.load_report.unexpected) == 16
    want = model(IDS, output_hidden_states=True).hidden_states[1]
    assert torch.equal(loaded(IDS).last_hidden_state, want)


def test_heads_of_others_are_reported_not_warned_of(heads, tmp_path):
    heads.save_pretrained(tmp_path / "a")
    loaded = quiet(BertModel.from_pretrained, tmp_path / "a")
    same(loaded, heads.bert)
    assert all(key.startswith("cls.") for key in loaded.load_report.unexpected)
    assert len(loaded.load_report.unexpected) == 7
    refused("unexpected cls.predictions.bias", folder=tmp_path / "a", strict=True)


def test_a_parameter_twice_is_refused(tensors, tmp_path):
    tensors["bert.pooler.dense.bias"] = tensors["pooler.dense.bias"].clone()
    refused("twice", "bert.pooler.dense.bias", folder=write(tmp_path / "a", tensors))


# ---------------------------------------------------------------- shared parameters
def test_shared_parameters_are_saved_once_and_shared_again(heads, tmp_path):
    heads.save_pretrained(tmp_path / "a")
    stored = load_file(tmp_path / "a" / "model.safetensors")
    assert not set(TIED) & set(stored) and len(stored) == len(heads.state_dict()) - 2
    loaded = quiet(Heads.from_pretrained, tmp_path / "a", strict=True)
    same(loaded, heads)
    assert loaded.is_tied()
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in heads.parameters())


@pytest.mark.parametrize("present", [TIED, TIED[:1], TIED[1:], ()])
def test_decoder_present_or_absent(present, heads, tmp_path):
    stored = {
        key: tensor.clone()
        for key, tensor in heads.state_dict().items()
        if key not in TIED or key in present
    }
    loaded = quiet(Heads.from_pretrained, write(tmp_path / "a", stored), strict=True)
    same(loaded, heads)
    assert loaded.is_tied()


def test_only_the_decoder_present(heads, tmp_path):
    stored = {key: tensor.clone() for key, tensor in heads.state_dict().items()}
    del stored["bert.embeddings.word_embeddings.weight"], stored["cls.predictions.bias"]
    loaded = quiet(Heads.from_pretrained, write(tmp_path / "a", stored), strict=True)
    same(loaded, heads)
    assert loaded.is_tied()


def test_a_decoder_that_differs_is_refused(heads, tmp_path):
    stored = {key: tensor.clone() for key, tensor in heads.state_dict().items()}
    stored[TIED[0]] += 1
    refused("differ", "shares one parameter", folder=write(tmp_path / "a", stored), cls=Heads)


def test_a_head_on_a_bare_encoder(model, folder):
    with pytest.warns(UserWarning, match="does not hold .*cls.predictions"):
        loaded = Heads.from_pretrained(folder)
    same(loaded.bert, model)
    assert loaded.is_tied()
    assert not set(TIED[:1]) & set(loaded.load_report.missing)
    assert loaded.load_report.missing[:1] == ["cls.predictions.bias"]
    assert all(torch.isfinite(p).all() for p in loaded.parameters())


# ---------------------------------------------------------------- the config
@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("gelu", "gelu"),
        ("gelu_python", "gelu"),
        ("gelu_new", "gelu_new"),
        ("gelu_fast", "gelu_new"),
        ("gelu_pytorch_tanh", "gelu_new"),
        ("relu", "relu"),
    ],
)
def test_activation_names(name, ours, tensors, tmp_path):
    write(tmp_path / "a", tensors, hidden_act=name)
    assert BertModel.from_pretrained(tmp_path / "a").config.hidden_act == ours


def test_config_is_read(tensors, tmp_path):
    fields = {"layer_norm_eps": 0.5, "pad_token_id": 3, "attn_implementation": "flash", "x": 1}
    write(tmp_path / "a", tensors, **fields)
    config = BertModel.from_pretrained(tmp_path / "a").config
    assert (config.layer_norm_eps, config.pad_token_id) == (0.5, 3)
    assert config.attn_implementation == "sdpa"
    null = write(tmp_path / "b", tensors, pad_token_id=None)
    assert BertModel.from_pretrained(null).config.pad_token_id == 0


def test_config_changes(folder):
    loaded = BertModel.from_pretrained(folder, attn_implementation="eager", hidden_dropout_prob=0.0)
    assert loaded.config.attn_implementation == "eager"
    assert not loaded.encoder.layer[0].attention.self.fused
    with pytest.raises(TypeError, match="does not know colour.*add_pooling_layer"):
        BertModel.from_pretrained(folder, colour="red")
    refused("hidden_act must be one of", folder=folder, hidden_act="swish")


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"model_type": "albert"}, ["model_type = 'albert'", "'bert' or 'ernie'"]),
        ({"model_type": "distilbert"}, ["model_type = 'distilbert'"]),
        ({"model_type": "roberta"}, ["model_type = 'roberta'"]),
        ({"model_type": "modernbert"}, ["model_type = 'modernbert'"]),
        ({"position_embedding_type": "relative_key"}, ["position_embedding_type = 'relative_key'"]),
        ({"hidden_act": "silu"}, ["hidden_act = 'silu'", "gelu"]),
        ({"is_decoder": True}, ["is_decoder = True"]),
        ({"add_cross_attention": True}, ["add_cross_attention"]),
        ({"embedding_size": 6}, ["embedding_size = 6"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
        ({"pruned_heads": {"1": [0]}}, ["pruned_heads"]),
        ({"hidden_act": ["gelu"]}, ["hidden_act = ['gelu']"]),
        ({"num_attention_heads": 5}, ["config.json", "12 does not divide into 5 heads"]),
        ({"hidden_size": "12"}, ["hidden_size must be a whole number"]),
        ({"vocab_size": 0}, ["vocab_size must be a whole number of at least 1"]),
        ({"use_task_id": True}, ["task embeddings"]),
    ],
)  # fmt: skip
def test_unsupported_configs_are_refused(fields, fragments, tensors, tmp_path):
    refused(*fragments, folder=write(tmp_path / "a", tensors, **fields))


def test_ernie_task_vectors_join_the_segments(model, tensors, tmp_path):
    tasks = torch.randn(3, 12)
    tensors = {"ernie." + key: tensor for key, tensor in tensors.items()}
    tensors["ernie.embeddings.task_type_embeddings.weight"] = tasks
    write(tmp_path / "a", tensors, model_type="ernie")
    same(quiet(BertModel.from_pretrained, tmp_path / "a", strict=True), model)  # not asked for
    write(tmp_path / "a", tensors, model_type="ernie", use_task_id=True)
    loaded = quiet(BertModel.from_pretrained, tmp_path / "a", strict=True)
    segments = loaded.embeddings.token_type_embeddings.weight
    assert torch.equal(segments, model.embeddings.token_type_embeddings.weight + tasks[0])


def test_sinusoidal_positions_stay_the_formula(tensors, tmp_path):
    table = TINY.initializer_range * sinusoidal_positions(10, 12)
    refused(
        "computes by its formula",
        folder=write(tmp_path / "a", tensors),
        position_embedding_type="sinusoidal",
    )
    tensors["embeddings.position_embeddings.weight"] = table.half().float()
    write(tmp_path / "a", tensors, position_embedding_type="sinusoidal")
    loaded = quiet(BertModel.from_pretrained, tmp_path / "a", strict=True)
    assert torch.equal(loaded.embeddings.position_embeddings.weight, table)
    assert not loaded.embeddings.position_embeddings.weight.requires_grad
    loaded.save_pretrained(tmp_path / "b")
    same(quiet(BertModel.from_pretrained, tmp_path / "b", strict=True), loaded)


# ---------------------------------------------------------------- bad files
def test_missing_files(folder, tmp_path):
    refused("no folder", str(tmp_path / "none"), folder=tmp_path / "none")
    refused("is a file", folder=folder / "config.json")
    (folder / "model.safetensors").unlink()
    refused("no weights", "model.safetensors, pytorch_model.bin", folder=folder)
    (folder / "config.json").unlink()
    refused("no config.json", folder=folder)


@pytest.mark.parametrize("text", ["not json {", "", b"\xff\xfe\x00", '{"a": 1'])
def test_a_config_that_is_not_json(text, folder):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "config.json").write_bytes(data)
    refused("config.json is not JSON", folder=folder)


def test_a_config_that_is_no_object(folder):
    (folder / "config.json").write_text("[1, 2]")
    refused("must hold a JSON object, not list", folder=folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 2000, -1])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_truncated_weights(file, keep, tensors, tmp_path):
    write(tmp_path / "a", tensors, file=file)
    path = tmp_path / "a" / file
    path.write_bytes(path.read_bytes()[:keep])
    refused(file, "damaged", folder=tmp_path / "a")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_git_lfs_pointers(file, tensors, tmp_path):
    write(tmp_path / "a", tensors, file=file)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90868376\n"
    (tmp_path / "a" / file).write_text(pointer)
    refused("git-lfs pointer", folder=tmp_path / "a")


def test_a_shape_that_does_not_fit(tensors, tmp_path):
    tensors["encoder.layer.1.output.dense.weight"] = torch.zeros(12, 21)
    refused(
        "encoder.layer.1.output.dense.weight has the shape (12, 21)",
        "(12, 20) in the model",
        folder=write(tmp_path / "a", tensors),
    )


def test_a_vocabulary_that_does_not_fit(folder):
    refused(
        "word_embeddings.weight has the shape (31, 12)", "(40, 12)", folder=folder, vocab_size=40
    )


def test_another_kind_of_model(tmp_path):
    other = {"transformer.h.0.attn.weight": torch.zeros(2), "wte.weight": torch.zeros(3)}
    refused("none of the 2 tensors", "another kind", folder=write(tmp_path / "a", other))


def test_quantized_weights(tensors, tmp_path):
    tensors["pooler.dense.weight"] = torch.zeros(12, 12, dtype=torch.int8)
    refused("pooler.dense.weight", "torch.int8", "quantized", folder=write(tmp_path / "a", tensors))


def test_a_pickle_that_is_no_state_dict(tensors, tmp_path):
    write(tmp_path / "a", {"epoch": 3, "state": tensors}, file="pytorch_model.bin")
    refused("flat state_dict", folder=tmp_path / "a")


# ---------------------------------------------------------------- saving
def test_what_is_written(model, tmp_path):
    model.save_pretrained(tmp_path / "deep" / "a")
    assert sorted(p.name for p in (tmp_path / "deep" / "a").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    fields = json.loads((tmp_path / "deep" / "a" / "config.json").read_text())
    assert fields["architectures"] == ["BertModel"]
    assert fields["model_type"] == "bert"
    assert fields["dtype"] == "float32"
    assert "attn_implementation" not in fields
    assert fields["num_attention_heads"] == 3
    modes = {p.stat().st_mode for p in (tmp_path / "deep" / "a").iterdir()}
    assert len(modes) == 1


def test_other_files_stay_and_a_second_save_wins(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with torch.no_grad():
        model.pooler.dense.bias.add_(1)
    model.save_pretrained(tmp_path)
    same(BertModel.from_pretrained(tmp_path), model)
    assert (tmp_path / "vocab.txt").read_text() == "[PAD]\n"


@pytest.mark.parametrize("step", ["safetensors.torch.save_file", "shutil.copymode", "json.dumps"])
def test_a_failing_save_changes_nothing(step, model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    with torch.no_grad():
        model.pooler.dense.bias.add_(1)
    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="No space"):
        model.save_pretrained(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_reader_of_the_old_file_is_not_disturbed(model, tmp_path):
    model.save_pretrained(tmp_path)
    for name in ("model.safetensors", "config.json"):
        before = (tmp_path / name).read_bytes()
        with (tmp_path / name).open("rb") as reader:
            start = reader.read(10)
            BertModel(TINY).save_pretrained(tmp_path)
            assert start + reader.read() == before


def test_saving_onto_a_file(model, tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(CheckpointError, match="name a directory"):
        model.save_pretrained(tmp_path / "a")


def test_half_precision_survives(model, tmp_path):
    model.bfloat16().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    same(BertModel.from_pretrained(tmp_path, dtype=None), model)


# ---------------------------------------------------------------- Google's checkpoints
@pytest.fixture
def tf_folder(tmp_path):
    for path in TF_BERT.iterdir():
        if not path.name.startswith("expected"):
            shutil.copy(path, tmp_path)
    return tmp_path


@functools.cache
def expected():
    with np.load(TF_BERT / "expected.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def test_tensorflow_variables_bit_for_bit():
    want = json.loads((TF_BERT / "expected.json").read_text())["variables"]
    got = bundle.read_tensors(TF_BERT / "bert_model.ckpt.index")
    slots = {f"{name}/{slot}" for name in want for slot in ("adam_m", "adam_v")}
    assert set(got) == {*want, *slots, "global_step"}
    assert got["global_step"].item() == 20 and got["global_step"].dtype == torch.int64
    for name, digest in want.items():
        assert hashlib.sha256(got[name].numpy().tobytes()).hexdigest() == digest, name


def test_tensorflow_checkpoint_computes_what_tensorflow_does():
    model = quiet(BertModel.from_pretrained, TF_BERT)
    assert model.config.hidden_act == "gelu_new"
    assert model.load_report.missing == [] and len(model.load_report.unexpected) == 7
    want = expected()
    inputs = (want["input_ids"], want["token_type_ids"], want["attention_mask"])
    with torch.no_grad():
        out = model(*inputs, output_hidden_states=True)
    torch.testing.assert_close(
        torch.stack(out.hidden_states), want["hidden_states"], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(out.pooler_output, want["pooler_output"], atol=1e-5, rtol=0)

    exact = BertModel.from_pretrained(TF_BERT, hidden_act="gelu")
    with torch.no_grad():
        other = exact(*inputs).last_hidden_state
    assert 1e-5 < (other - want["hidden_states"][-1]).abs().max() < 1e-2


def test_tensorflow_heads():
    heads = quiet(Heads.from_pretrained, TF_BERT, strict=True)
    want = expected()
    with torch.no_grad():
        tokens, follows = heads(want["input_ids"], want["token_type_ids"], want["attention_mask"])
    torch.testing.assert_close(tokens, want["prediction_logits"], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(follows, want["seq_relationship_logits"], atol=1e-5, rtol=0)
    assert heads.is_tied()


def test_tensorflow_names():
    for theirs, ours in {
        "bert/embeddings/word_embeddings": "bert.embeddings.word_embeddings.weight",
        "bert/encoder/layer_11/output/dense/bias": "bert.encoder.layer.11.output.dense.bias",
        "bert/embeddings/LayerNorm/gamma": "bert.embeddings.LayerNorm.weight",
        "bert/pooler/dense/kernel": "bert.pooler.dense.weight",
        "cls/predictions/output_bias": "cls.predictions.bias",
        "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
        "cls/squad/output_bias": "qa_outputs.bias",
        "output_weights": "classifier.weight",
    }.items():
        assert tensorflow.bert_name(theirs) == ours


def test_tensorflow_to_huggingface_and_back(tmp_path):
    model = BertModel.from_pretrained(TF_BERT)
    model.save_pretrained(tmp_path)
    same(quiet(BertModel.from_pretrained, tmp_path, strict=True), model)


def test_which_of_several_checkpoints(tf_folder):
    for path in list(tf_folder.glob("bert_model.ckpt*")):
        shutil.copy(path, tf_folder / path.name.replace("bert_model.ckpt", "model.ckpt-20"))
    assert tensorflow.find_weights(tf_folder).name == "bert_model.ckpt.index"
    (tf_folder / "checkpoint").write_text('model_checkpoint_path: "/there/model.ckpt-20"\n')
    assert tensorflow.find_weights(tf_folder).name == "model.ckpt-20.index"
    assert BertModel.from_pretrained(tf_folder).config.hidden_size == 24
    (tf_folder / "checkpoint").unlink()
    (tf_folder / "bert_model.ckpt.index").rename(tf_folder / "model.ckpt-10.index")
    refused("several checkpoints", "model.ckpt-10, model.ckpt-20", folder=tf_folder)


def test_damaged_tensorflow_files(tf_folder):
    index = tf_folder / "bert_model.ckpt.index"
    data = tf_folder / "bert_model.ckpt.data-00000-of-00001"
    whole, numbers = index.read_bytes(), data.read_bytes()
    for keep in (0, 10, len(whole) // 2, len(whole) - 1):
        index.write_bytes(whole[:keep])
        refused("bert_model.ckpt.index", "cut short", folder=tf_folder)
    for at in (0, 5, len(whole) // 2, len(whole) - 100):
        index.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused("bert_model.ckpt.index is damaged", folder=tf_folder)
    index.write_bytes(whole)
    data.write_bytes(numbers[:-5000])
    refused("data-00000-of-00001 is cut short at", folder=tf_folder)
    data.write_bytes(numbers[:90000] + bytes([numbers[90000] ^ 64]) + numbers[90001:])
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        bundle.read_tensors(index)
    data.unlink()
    refused("no bert_model.ckpt.data-00000-of-00001", "both files", folder=tf_folder)


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 4670), flip=st.integers(1, 255))
def test_no_flipped_byte_of_an_index_goes_unnoticed_or_crashes(at, flip, tmp_path_factory):
    whole = (TF_BERT / "bert_model.ckpt.index").read_bytes()
    path = tmp_path_factory.mktemp("flip") / "x.index"
    path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    want = bundle.read_index(TF_BERT / "bert_model.ckpt.index")
    try:
        got = bundle.read_index(path)
    except CheckpointError as error:
        assert "damaged" in str(error) or "not the index" in str(error)
    else:  # bytes that are not used: the statistics block and the footer's padding
        assert got == want


# An independent writer of the format, for what TensorFlow's own small file does not have.
def slow_crc(data):
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(crc):
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def nested(number, message):
    return varint(number << 3 | 2) + varint(len(message)) + message


def plain(number, value):
    return varint(number << 3) + varint(value)


def write_bundle(folder, arrays, per_block=2, compression=0, header=b"", **changes):
    """Checkpoint ``x`` with several blocks of entries; ``changes`` spoils each entry's fields."""
    data, entries = b"", {b"": plain(1, 1) + header}
    for name in sorted(arrays):
        raw = arrays[name].tobytes()
        shape = b"".join(nested(2, plain(1, size)) for size in arrays[name].shape)
        fields = {"dtype": 1, "offset": len(data), "size": len(raw), **changes}
        entry = plain(1, fields["dtype"]) + nested(2, shape) + plain(4, fields["offset"])
        entry += plain(5, fields["size"]) + varint(6 << 3 | 5)
        entry += struct.pack("<I", masked(slow_crc(raw)))
        entries[name.encode()] = entry + fields.get("more", b"")
        data += raw
    table, handles = b"", []

    def block(items):
        nonlocal table
        body, last = b"", b""
        for key, value in items:
            shared = len(key)
            while not last.startswith(key[:shared]):
                shared -= 1
            rest = key[shared:]
            body += varint(shared) + varint(len(rest)) + varint(len(value)) + rest + value
            last = key
        body += struct.pack("<II", 0, 1)
        handle = varint(len(table)) + varint(len(body))
        kind = bytes([compression])
        table += body + kind + struct.pack("<I", masked(slow_crc(body + kind)))
        return handle

    items = list(entries.items())
    for start in range(0, len(items), per_block):
        part = items[start : start + per_block]
        handles.append((part[-1][0], block(part)))
    footer = block([]) + block(handles)
    table += footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    (folder / "x.index").write_bytes(table)
    (folder / "x.data-00000-of-00001").write_bytes(data)
    return folder / "x.index"


def arrays(*names):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(3, n + 1)).astype(np.float32) for n, name in enumerate(names)}


@pytest.mark.parametrize("per_block", [1, 2, 3, 50])
def test_tables_of_many_blocks(per_block, tmp_path):
    want = arrays("a", "ab", "abc/kernel", "abc/kernels", "b", "layer_1", "layer_10", "layer_2")
    got = bundle.read_tensors(write_bundle(tmp_path, want, per_block))
    assert set(got) == set(want)
    for name in want:
        assert np.array_equal(got[name].numpy(), want[name])


@pytest.mark.parametrize(
    ("spoil", "fragment"),
    [
        ({"compression": 1}, "compressed"),
        ({"header": plain(2, 1)}, "big-endian"),
        ({"more": nested(7, b"")}, "stored in slices"),
        ({"dtype": 7}, "TensorFlow's type 7"),
        ({"size": 4}, "cut short at a"),
        ({"offset": 4}, "checksum|cut short"),
    ],
)
def test_what_the_reader_does_not_know_is_refused(spoil, fragment, tmp_path):
    path = write_bundle(tmp_path, arrays("a", "b"), **spoil)
    with pytest.raises(CheckpointError, match=fragment):
        bundle.read_tensors(path)


def test_keras_checkpoints_are_refused(tmp_path):
    path = write_bundle(tmp_path, arrays("model/layer-0/kernel/.ATTRIBUTES/VARIABLE_VALUE"))
    with pytest.raises(CheckpointError, match="saved by Keras"):
        tensorflow.read_bert(path)


def test_empty_tensors_and_scalars(tmp_path):
    want = {"empty": np.zeros((0, 3), np.float32), "one": np.array(2.5, np.float32)}
    got = bundle.read_tensors(write_bundle(tmp_path, want))
    assert got["empty"].shape == (0, 3) and got["one"].shape == () and got["one"].item() == 2.5


def test_checksum_of_the_standard():
    # RFC 3720, appendix B.4
    assert bundle.crc32c(bytes(32)) == 0x8A9136AA
    assert bundle.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert bundle.crc32c(bytes(range(32))) == 0x46DD794E
    assert bundle.crc32c(b"123456789") == 0xE3069283
    assert bundle.crc32c(b"") == 0


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=700))
def test_checksum_of_anything(data):
    assert bundle.crc32c(data) == slow_crc(data)


def test_messages_name_no_internals(folder):
    """A sentence for the reader: no class of this package, no repr of a long list."""
    with pytest.raises(CheckpointError) as caught:
        BertModel.from_pretrained(folder, num_hidden_layers=50)
    assert re.search(r"and \d+ more", str(caught.value))
