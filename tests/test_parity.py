"""The package computes what transformers' BERT computes, and each reads what the other wrote.

Tiny random models of odd sizes: hidden states at each layer, attentions, pooler, the gradient that
flows from [CLS] back to the embeddings, and the gradient of every parameter, to 1e-5 in fp32 and
1e-11 in fp64, eager and fused, with and without padding. Then real weights (MiniLM), the tokenizer
on English, Chinese and emoji, and the parameter counts of the published sizes. The pre-training
heads: scores, losses, gradients and names, and one table in two places, come what may. The heads of
fine-tuning: scores, losses of each kind, gradients, dropout, names, files and pipelines.

    pytest tests/test_parity.py
"""

import copy
import math
import os
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bertlearn.accounting import count_parameters
from bertlearn.checks.reference import minilm as minilm_reference
from bertlearn.config import BertConfig
from bertlearn.data import sources
from bertlearn.masking import IGNORE
from bertlearn.model import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    mean_pool,
)
from bertlearn.tokenization import BertTokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SIZES = {
    "36/3 gelu": {"hidden_size": 36, "num_attention_heads": 3, "hidden_act": "gelu"},
    "60/5 gelu_new": {
        "hidden_size": 60,
        "num_attention_heads": 5,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
        "type_vocab_size": 3,
    },
    "21/7 relu": {
        "hidden_size": 21,
        "num_attention_heads": 7,
        "hidden_act": "relu",
        "layer_norm_eps": 1e-3,
        "num_hidden_layers": 1,
    },
    "14/1 gelu": {"hidden_size": 14, "num_attention_heads": 1, "pad_token_id": 5},
}
LENGTHS = {"full": (9, 9, 9), "padded": (9, 4, 1)}


def pair_of_models(dtype=torch.float32, attn="eager", **sizes):
    """The same random weights in transformers' BertModel and in ours, dropout off."""
    fields = {
        "vocab_size": 97,
        "hidden_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 50,
        "max_position_embeddings": 12,
        **sizes,
    }
    torch.manual_seed(7)
    theirs = transformers.BertModel(
        transformers.BertConfig(**fields, attn_implementation=attn)
    ).eval()
    for parameter in theirs.parameters():  # far from zero: attention is sharp, biases count
        nn.init.normal_(parameter, std=0.3)
    ours = BertModel(BertConfig(**fields, attn_implementation=attn)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.to(dtype), ours.to(dtype)


def a_batch(model, lengths=(9, 4, 1)):
    draw = torch.Generator().manual_seed(3)
    config = model.config
    shape = (len(lengths), max(lengths))
    ids = torch.randint(0, config.vocab_size, shape, generator=draw)
    types = torch.randint(0, config.type_vocab_size, shape, generator=draw)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


def distance(got, want):
    assert got.shape == want.shape and got.dtype == want.dtype
    assert torch.isfinite(want).all()
    return (got - want).abs().max().item() / max(1.0, want.abs().max().item())


# ---------------------------------------------------------------- random weights
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_hidden_states_attentions_pooler(size, attn, lengths):
    theirs, ours = pair_of_models(attn=attn, **size)
    batch = a_batch(ours, lengths)
    weights = attn == "eager"  # transformers has them on this path only
    with torch.no_grad():
        want = theirs(**batch, output_hidden_states=True, output_attentions=weights)
        got = ours(**batch, output_hidden_states=True, output_attentions=weights)
    assert len(got.hidden_states) == len(want.hidden_states) == ours.config.num_hidden_layers + 1
    for mine, other in zip(got.hidden_states, want.hidden_states, strict=True):
        assert distance(mine, other) < 1e-5
    assert distance(got.last_hidden_state, want.last_hidden_state) < 1e-5
    assert distance(got.pooler_output, want.pooler_output) < 1e-5
    assert (got.attentions is None) == (not weights)
    for mine, other in zip(got.attentions or (), want.attentions if weights else (), strict=True):
        assert mine.shape == (3, ours.config.num_attention_heads, 9, 9)
        assert distance(mine, other) < 1e-5


def gradients(model, batch):
    """Of a scalar of the last layer's [CLS] and of the pooler: at the embeddings' output, at each
    parameter."""
    model.zero_grad()
    held = []
    hook = model.embeddings.register_forward_hook(
        lambda module, inputs, output: (output.retain_grad(), held.append(output))[0]
    )
    out = model(**batch)
    hook.remove()
    draw = torch.Generator().manual_seed(5)
    cls = out.last_hidden_state[:, 0]
    cotangent = torch.randn(cls.shape, generator=draw, dtype=torch.float64).to(cls.dtype)
    ((cls + out.pooler_output) * cotangent).sum().backward()
    return held[0].grad, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)], ids=["fp32", "fp64"]
)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_gradients(size, attn, lengths, dtype, tolerance):
    theirs, ours = pair_of_models(dtype, attn, **size)
    batch = a_batch(ours, lengths)
    want_at_embeddings, want = gradients(theirs, batch)
    at_embeddings, got = gradients(ours, batch)
    assert distance(at_embeddings, want_at_embeddings) < tolerance
    assert at_embeddings[0].abs().amax(dim=-1).min() > 0  # [CLS] hears from every token
    padding = batch["attention_mask"] == 0
    assert not at_embeddings[padding].any()  # and from no padding, exactly
    assert list(got) == list(want)
    for name in want:
        assert distance(got[name], want[name]) < tolerance, name
    assert got["embeddings.word_embeddings.weight"].any()


def test_cls_only_gradient():
    """d [CLS] of the last layer / d word table, without the pooler: which rows it reaches."""
    theirs, ours = pair_of_models(**SIZES["36/3 gelu"])
    batch = a_batch(ours, (9,))
    grads = []
    for model in (theirs, ours):
        model(**batch).last_hidden_state[0, 0, :5].sum().backward()
        grads.append(model.embeddings.word_embeddings.weight.grad)
        assert model.pooler.dense.weight.grad is None
    assert distance(grads[1], grads[0]) < 1e-5
    rows = set(grads[1].abs().amax(dim=1).nonzero().flatten().tolist())
    assert rows == set(batch["input_ids"][0].tolist()) - {ours.config.pad_token_id}


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_padding_changes_nothing(attn):
    _, ours = pair_of_models(attn=attn, **SIZES["36/3 gelu"])
    batch = a_batch(ours, (9, 4, 1))
    with torch.no_grad():
        together = ours(**batch)
        for row, length in enumerate((9, 4, 1)):
            alone = ours(**{name: x[row : row + 1, :length] for name, x in batch.items()})
            got = together.last_hidden_state[row : row + 1, :length]
            assert distance(got, alone.last_hidden_state) < 1e-5
            assert distance(together.pooler_output[row : row + 1], alone.pooler_output) < 1e-5


def test_defaults_are_those_of_transformers():
    theirs, ours = pair_of_models(**SIZES["60/5 gelu_new"])
    ids = a_batch(ours)["input_ids"]
    with torch.no_grad():
        assert distance(ours(ids).last_hidden_state, theirs(ids).last_hidden_state) < 1e-5
    plain, reference = BertConfig(), transformers.BertConfig()
    for name, value in plain.to_dict().items():
        if name not in ("attn_implementation", "position_embedding_type"):
            assert getattr(reference, name) == value, name


# ---------------------------------------------------------------- files
def loaded_clean(info):
    assert not any(info.values()), info


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_export_loads_in_transformers(size, tmp_path):
    theirs, ours = pair_of_models(**size)
    ours.save_pretrained(tmp_path)
    back, info = transformers.AutoModel.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    loaded_clean(info)
    assert type(back) is transformers.BertModel
    batch = a_batch(ours)
    with torch.no_grad():
        assert torch.equal(back(**batch).last_hidden_state, theirs(**batch).last_hidden_state)
        assert distance(ours(**batch).pooler_output, back(**batch).pooler_output) < 1e-5
    for name, value in ours.config.to_dict().items():
        if name not in ("attn_implementation", "position_embedding_type"):
            assert getattr(back.config, name) == value, name


def test_export_of_sinusoidal_positions(tmp_path):
    _, ours = pair_of_models()
    config = BertConfig(**{**ours.config.to_dict(), "position_embedding_type": "sinusoidal"})
    torch.manual_seed(0)
    ours = BertModel(config).eval()
    ours.save_pretrained(tmp_path)
    back, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    loaded_clean(info)
    batch = a_batch(ours)
    with torch.no_grad():
        assert distance(ours(**batch).pooler_output, back(**batch).pooler_output) < 1e-5


def test_export_without_pooler(tmp_path):
    _, ours = pair_of_models()
    bare = BertModel(ours.config, add_pooling_layer=False).eval()
    bare.save_pretrained(tmp_path)
    back, info = transformers.BertModel.from_pretrained(
        tmp_path, add_pooling_layer=False, output_loading_info=True
    )
    loaded_clean(info)
    batch = a_batch(ours)
    with torch.no_grad():
        got, want = bare(**batch), back(**batch)
    assert distance(got.last_hidden_state, want.last_hidden_state) < 1e-5


@pytest.mark.parametrize(
    "kind",
    ["BertModel", "BertForPreTraining", "BertForMaskedLM", "BertForSequenceClassification"],
)
def test_reads_what_transformers_writes(kind, tmp_path):
    theirs, ours = pair_of_models()
    whole = getattr(transformers, kind)(theirs.config).eval()
    base = whole if kind == "BertModel" else whole.bert
    base.load_state_dict(theirs.state_dict(), strict=kind != "BertForMaskedLM")
    whole.save_pretrained(tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        got = BertModel.from_pretrained(tmp_path)
    told = [str(warning.message) for warning in told if warning.category is UserWarning]
    if kind == "BertForMaskedLM":  # it has no pooler, and that is said
        assert len(told) == 1 and "pooler.dense" in told[0]
    else:
        assert told == [] and got.load_report.missing == []
    heads = got.load_report.unexpected
    assert bool(heads) == (kind != "BertModel")
    assert all(key.startswith(("cls.", "classifier.")) for key in heads)
    for key, tensor in ours.state_dict().items():
        if kind != "BertForMaskedLM" or "pooler" not in key:
            assert torch.equal(got.state_dict()[key], tensor), key


def test_reads_ernie(tmp_path):
    config = transformers.ErnieConfig(
        vocab_size=97,
        hidden_size=36,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=50,
        max_position_embeddings=12,
        use_task_id=True,
    )
    torch.manual_seed(0)
    theirs = transformers.ErnieModel(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path)
    ours = BertModel.from_pretrained(tmp_path, strict=True)
    batch = a_batch(ours)
    with torch.no_grad():
        want = theirs(**batch).last_hidden_state
        assert distance(ours(**batch).last_hidden_state, want) < 1e-5


# ---------------------------------------------------------------- the blank's head
def pair_with_heads(dtype=torch.float32, **sizes):
    """The same random weights in transformers' BertForMaskedLM and in ours, dropout off."""
    bare, _ = pair_of_models(**sizes)
    theirs = transformers.BertForMaskedLM(bare.config).eval()
    torch.manual_seed(8)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    fields = {
        name: getattr(bare.config, name)
        for name in BertConfig().to_dict()
        if name not in ("attn_implementation", "position_embedding_type")
    }
    ours = BertForMaskedLM(BertConfig(**fields)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.to(dtype), ours.to(dtype)


def a_batch_with_blanks(model, lengths=(9, 4, 1)):
    batch = a_batch(model, lengths)
    draw = torch.Generator().manual_seed(4)
    asked = (torch.rand(batch["input_ids"].shape, generator=draw) < 0.4) & (
        batch["attention_mask"] == 1
    )
    assert asked.any() and not asked.all()
    return batch, batch["input_ids"].masked_fill(~asked, IGNORE)


def tied(model):
    head, table = model.cls.predictions, model.bert.embeddings.word_embeddings
    return head.decoder.weight is table.weight and head.decoder.bias is head.bias


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_scores_and_loss_of_blanks(size, lengths):
    theirs, ours = pair_with_heads(**size)
    batch, labels = a_batch_with_blanks(ours, lengths)
    with torch.no_grad():
        want = theirs(**batch, labels=labels)
        everywhere, asked = ours(**batch), ours(**batch, labels=labels)
    assert everywhere.loss is None
    assert distance(everywhere.logits, want.logits) < 1e-5
    assert distance(asked.logits, want.logits[labels != IGNORE]) < 1e-5
    assert distance(asked.loss, want.loss) < 1e-5


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)], ids=["fp32", "fp64"]
)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_gradients_of_the_blanks_loss(size, dtype, tolerance):
    theirs, ours = pair_with_heads(dtype, **size)
    batch, labels = a_batch_with_blanks(ours)
    for model in (theirs, ours):
        model(**batch, labels=labels).loss.backward()
    want = {name: p.grad for name, p in theirs.named_parameters()}
    got = {name: p.grad for name, p in ours.named_parameters()}
    for name in want:
        assert distance(got[name], want[name]) < tolerance, name
    assert set(got) == set(want)


def test_no_blank_no_loss_and_no_gradient():
    _, ours = pair_with_heads()
    batch = a_batch(ours)
    out = ours(**batch, labels=torch.full_like(batch["input_ids"], IGNORE))
    assert out.loss == 0 and out.logits.shape == (0, 97)
    out.loss.backward()
    assert not any(p.grad is not None and p.grad.any() for p in ours.parameters())


def test_labels_of_another_shape_and_outside_of_the_vocabulary():
    _, ours = pair_with_heads()
    batch, labels = a_batch_with_blanks(ours)
    with pytest.raises(ValueError, match=r"labels \(3, 8\) must have the shape \(3, 9\)"):
        ours(**batch, labels=labels[:, 1:])
    with pytest.raises(IndexError, match="out of bounds"):  # -1 was once "ignore": it is not now
        ours(**batch, labels=labels.masked_fill(labels == IGNORE, -1))


def test_names_of_the_heads_parameters(tmp_path):
    theirs, ours = pair_with_heads()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.save_pretrained(tmp_path / "ours")
    back, info = transformers.BertForMaskedLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    loaded_clean(info)
    theirs.save_pretrained(tmp_path / "theirs")
    mine = BertForMaskedLM.from_pretrained(tmp_path / "theirs", strict=True)
    batch, labels = a_batch_with_blanks(ours)
    with torch.no_grad():
        want = theirs(**batch, labels=labels).loss
        for model in (back, mine):
            assert distance(model(**batch, labels=labels).loss, want) < 1e-5
    assert tied(mine)


def test_one_table_in_two_places_come_what_may(tmp_path):
    _, ours = pair_with_heads()
    assert tied(ours)
    ours.save_pretrained(tmp_path)
    again = BertForMaskedLM.from_pretrained(tmp_path, strict=True)
    moved = copy.deepcopy(ours).to(torch.float64)
    copied = BertForMaskedLM(ours.config)
    copied.load_state_dict(ours.state_dict())
    for model in (again, moved, copied):
        assert tied(model)
        table = model.bert.embeddings.word_embeddings.weight
        assert sum(p is table for p in model.parameters()) == 1
    batch, labels = a_batch_with_blanks(copied)
    copied.train()
    step = torch.optim.SGD(copied.parameters(), lr=0.1)
    copied(**batch, labels=labels).loss.backward()
    step.step()
    assert tied(copied)


def test_pretrained_embeddings_reach_the_decoder(tmp_path):
    """A file without a head: the decoder's matrix is the file's table, the rest is told missing."""
    theirs, _ = pair_of_models()
    theirs.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="cls.predictions"):
        model = BertForMaskedLM.from_pretrained(tmp_path)
    assert tied(model)
    assert torch.equal(
        model.cls.predictions.decoder.weight, theirs.embeddings.word_embeddings.weight
    )


@pytest.mark.parametrize("vocab", [97, 8000, 30522])
def test_fresh_weights_know_nothing(vocab):
    """The loss of a fresh model is that of a guess among all words, ln V."""
    torch.manual_seed(0)
    config = BertConfig.preset("tiny", vocab_size=vocab, hidden_dropout_prob=0.0)
    model = BertForMaskedLM(config)
    ids = torch.randint(5, vocab, (4, 32))
    with torch.no_grad():
        loss = model(ids, labels=ids).loss.item()
    assert abs(loss - math.log(vocab)) < 0.1


# ---------------------------------------------------------------- both pre-training heads
def pretraining_models(dtype=torch.float64, **sizes):
    """The same random weights in transformers' BertForPreTraining and in ours."""
    base, ours = pair_of_models(**{"max_position_embeddings": 16, **sizes})
    theirs = transformers.BertForPreTraining(base.config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = BertForPreTraining(ours.config).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.to(dtype), ours.to(dtype)


def pretraining_labels(batch):
    """A third of the real tokens asked for, and a label for each pair."""
    draw = torch.Generator().manual_seed(11)
    ids = batch["input_ids"]
    asked = (torch.rand(ids.shape, generator=draw) < 0.35) & batch["attention_mask"].bool()
    asked[0, 1] = True
    return ids.masked_fill(~asked, -100), torch.tensor([0, 1, 0])


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_pretraining_logits_loss_gradients(size):
    theirs, ours = pretraining_models(**size)
    batch = a_batch(ours)
    labels, follows = pretraining_labels(batch)
    want = theirs(**batch, labels=labels, next_sentence_label=follows)
    got = ours(**batch, labels=labels, next_sentence_label=follows)
    assert distance(ours(**batch).prediction_logits, want.prediction_logits) < 1e-10
    assert distance(got.prediction_logits, want.prediction_logits[labels != -100]) < 1e-10
    assert distance(got.seq_relationship_logits, want.seq_relationship_logits) < 1e-10
    assert distance(got.loss, want.loss) < 1e-10
    assert torch.equal(got.loss, got.mlm_loss + got.pair_loss)
    want.loss.backward()
    got.loss.backward()
    reference = dict(theirs.named_parameters())
    assert {n for n, _ in ours.named_parameters()} == set(reference)
    for name, parameter in ours.named_parameters():
        assert distance(parameter.grad, reference[name].grad) < 1e-10, name
    assert ours.cls.seq_relationship.weight.grad.any()


def test_pretraining_losses_one_by_one():
    """Each loss alone, neither, and what reaches which head."""
    _, ours = pretraining_models()
    batch = a_batch(ours)
    labels, follows = pretraining_labels(batch)
    neither = ours(**batch)
    assert neither.loss is neither.mlm_loss is neither.pair_loss is None
    words = ours(**batch, labels=labels)
    assert torch.equal(words.loss, words.mlm_loss) and words.pair_loss is None
    pairs = ours(**batch, next_sentence_label=follows)
    assert torch.equal(pairs.loss, pairs.pair_loss) and pairs.mlm_loss is None
    assert pairs.prediction_logits.shape == (3, 9, 97)
    words.loss.backward()
    assert ours.cls.seq_relationship.weight.grad is None
    assert ours.bert.pooler.dense.weight.grad is None  # [CLS] of the last layer is not asked
    ours.zero_grad()
    pairs.loss.backward()
    assert ours.cls.predictions.transform.dense.weight.grad is None
    assert ours.bert.pooler.dense.weight.grad.any()


def test_label_0_means_next():
    """Column 0 of the scores belongs to label 0, and label 0 is trained like label 1."""
    _, ours = pretraining_models()
    batch = a_batch(ours)
    for label in (0, 1):
        ours.zero_grad()
        out = ours(**batch, next_sentence_label=torch.full((3,), label))
        want = -out.seq_relationship_logits.log_softmax(-1)[:, label].mean()
        assert distance(out.pair_loss, want) < 1e-12
        assert out.pair_loss > 0
        out.loss.backward()
        step = ours.cls.seq_relationship.bias.grad
        assert step[label] < 0 < step[1 - label]  # descent raises the right one


def test_pretraining_keys_and_files(tmp_path):
    """208 names for BERT-base, the same as in transformers; files go both ways; the decoder stays
    the table of token embeddings."""
    with torch.device("meta"):
        ours = BertForPreTraining(BertConfig())
        theirs = transformers.BertForPreTraining(transformers.BertConfig())
    names = {k: v.shape for k, v in ours.state_dict().items()}
    assert names == {k: v.shape for k, v in theirs.state_dict().items()}
    assert len(names) == 208
    assert sum(p.numel() for p in ours.parameters()) == 110_106_428

    theirs, ours = pretraining_models(torch.float32)
    batch = a_batch(ours)
    ours.save_pretrained(tmp_path / "ours")
    back, info = transformers.BertForPreTraining.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    loaded_clean(info)
    theirs.save_pretrained(tmp_path / "theirs")
    read = BertForPreTraining.from_pretrained(tmp_path / "theirs", strict=True)
    with torch.no_grad():
        want = theirs(**batch)
        for got in (back.eval()(**batch), read.eval()(**batch)):
            assert distance(got.prediction_logits, want.prediction_logits) < 1e-5
            assert distance(got.seq_relationship_logits, want.seq_relationship_logits) < 1e-5
    read.load_state_dict(theirs.state_dict())
    for model in (ours, read, read.double().float()):
        table = model.bert.embeddings.word_embeddings.weight
        assert model.cls.predictions.decoder.weight is table
        assert model.cls.predictions.decoder.bias is model.cls.predictions.bias


# ---------------------------------------------------------------- the heads of fine-tuning
TASKS = {
    "classes": (BertForSequenceClassification, {"num_labels": 4}),
    "number": (BertForSequenceClassification, {"num_labels": 1}),
    "several": (BertForSequenceClassification, {"num_labels": 4}),
    "tokens": (BertForTokenClassification, {"num_labels": 5}),
    "span": (BertForQuestionAnswering, {}),
}


def task_models(task, dtype=torch.float32, dropout=0.0, **sizes):
    """The same random weights in a model of transformers with that head and in ours."""
    kind, arguments = TASKS[task]
    base, ours = pair_of_models(**{"hidden_dropout_prob": dropout, **sizes})
    config = transformers.BertConfig(**{**base.config.to_dict(), **arguments})
    theirs = getattr(transformers, kind.__name__)(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = kind(ours.config, **arguments).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.to(dtype), ours.to(dtype)


def task_labels(task, batch, dtype):
    draw = torch.Generator().manual_seed(13)
    rows, seq = batch["input_ids"].shape
    if task == "number":
        return {"labels": torch.randn(rows, generator=draw, dtype=torch.float64).to(dtype)}
    if task == "several":
        yes = torch.rand(rows, 4, generator=draw) < 0.5
        return {"labels": yes.to(dtype)}
    if task == "tokens":
        labels = torch.randint(0, 5, (rows, seq), generator=draw)
        asked = (torch.rand(rows, seq, generator=draw) < 0.6) & (batch["attention_mask"] == 1)
        asked[:, 0] = False
        asked[0, 1] = True
        return {"labels": labels.masked_fill(~asked, IGNORE)}
    if task == "span":  # one of them beyond the row, which does not count
        return {
            "start_positions": torch.tensor([2, 0, seq + 3]),
            "end_positions": torch.tensor([5, 0, seq + 3]),
        }
    return {"labels": torch.tensor([3, 0, 2])}


def task_logits(output):
    if hasattr(output, "start_logits"):
        return torch.stack((output.start_logits, output.end_logits), dim=-1)
    return output.logits


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)], ids=["fp32", "fp64"]
)
@pytest.mark.parametrize("attn", ["eager", "sdpa"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("task", TASKS)
def test_task_logits_loss_gradients(task, size, attn, dtype, tolerance):
    theirs, ours = task_models(task, dtype, attn=attn, **size)
    batch = a_batch(ours)
    labels = task_labels(task, batch, dtype)
    want, got = theirs(**batch, **labels), ours(**batch, **labels)
    assert ours(**batch).loss is None
    assert distance(got.logits, task_logits(want)) < tolerance
    assert distance(ours(**batch).logits, got.logits) < tolerance
    assert distance(got.loss, want.loss) < tolerance
    want.loss.backward()
    got.loss.backward()
    reference = dict(theirs.named_parameters())
    assert [n for n, _ in ours.named_parameters()] == list(reference)
    for name, parameter in ours.named_parameters():
        assert distance(parameter.grad, reference[name].grad) < tolerance, name
    assert ours.bert.embeddings.word_embeddings.weight.grad.any()


@pytest.mark.parametrize("task", ["classes", "tokens"])
def test_task_dropout_is_where_theirs_is(task):
    """In training the same random numbers drop the same entries: same places, same probability."""
    theirs, ours = task_models(task, dropout=0.3, attention_probs_dropout_prob=0.0)
    batch = a_batch(ours)
    outputs = []
    for model in (theirs.train(), ours.train()):
        torch.manual_seed(5)
        outputs.append(model(**batch).logits)
    assert distance(outputs[1], outputs[0]) < 1e-5
    still = ours.eval()(**batch).logits
    assert distance(outputs[1], still) > 1e-2
    silent = type(ours)(ours.config, classifier_dropout=0.0)
    assert silent.dropout.p == 0.0 and ours.dropout.p == 0.3


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 1.0], [0.2, 3.0, 1.0, 0.5]])
@pytest.mark.parametrize("task", ["classes", "tokens"])
def test_label_weights_are_those_of_torch(task, weights):
    _, ours = task_models(task)
    batch = a_batch(ours)
    labels = task_labels(task, batch, torch.float32)["labels"]
    given = torch.tensor([*weights, 2.0] if task == "tokens" else weights)
    got = ours(**batch, labels=labels, label_weights=given)
    want = nn.CrossEntropyLoss(weight=given)(
        got.logits.reshape(-1, got.logits.shape[-1]), labels.flatten()
    )
    assert distance(got.loss, want) < 1e-6


@pytest.mark.parametrize("task", TASKS)
def test_task_files_go_both_ways(task, tmp_path):
    theirs, ours = task_models(task)
    kind = type(ours)
    batch = a_batch(ours)
    if kind is not BertForQuestionAnswering:
        names = dict(enumerate("ABCDE"[: len(ours.id2label)]))
        ours.id2label = names
        assert theirs.config.id2label == {i: f"LABEL_{i}" for i in names}
        assert kind(ours.config, len(names)).id2label == theirs.config.id2label
    ours.save_pretrained(tmp_path / "ours")
    back, info = getattr(transformers, kind.__name__).from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    loaded_clean(info)
    theirs.save_pretrained(tmp_path / "theirs")
    read = kind.from_pretrained(tmp_path / "theirs", strict=True)
    again = kind.from_pretrained(tmp_path / "ours", strict=True)
    with torch.no_grad():
        want = task_logits(theirs(**batch))
        assert distance(task_logits(back.eval()(**batch)), want) < 1e-5
        assert distance(read(**batch).logits, want) < 1e-5
        assert distance(again(**batch).logits, want) < 1e-5
    if kind is not BertForQuestionAnswering:
        assert back.config.id2label == names == again.id2label
        assert back.config.label2id == {name: i for i, name in names.items()}
        assert read.id2label == theirs.config.id2label


def test_a_pretrained_model_gets_a_fresh_head(tmp_path):
    """As many labels as are asked for, whatever the file says of labels; the rest is the file's."""
    theirs, ours = pair_of_models()
    theirs.save_pretrained(tmp_path)
    batch = a_batch(ours)
    for kind, arguments in (
        (BertForSequenceClassification, {"num_labels": 3}),
        (BertForTokenClassification, {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}}),
        (BertForQuestionAnswering, {}),
    ):
        with pytest.warns(UserWarning, match="starts from random values"):
            model = kind.from_pretrained(tmp_path, **arguments)
        with torch.no_grad():
            assert (
                distance(model.bert(**batch).last_hidden_state, ours(**batch).last_hidden_state)
                < 1e-5
            )
            assert model(**batch).logits.shape[-1] == (2 if not arguments else 3)
    with pytest.raises(ValueError, match="0, 1, 2"):
        BertForTokenClassification(ours.config, id2label={0: "O", 2: "X"})
    with pytest.raises(ValueError, match="distinct"):
        BertForTokenClassification(ours.config, id2label={0: "O", 1: "O"})


def test_pipelines_read_what_we_write(tmp_path, minilm, tokenizers):
    """``transformers.pipeline`` on a saved folder: the names of the labels, and our scores."""
    ours = tokenizers[0]
    encoded = ours.encode(TEXTS[0])
    for task, kind, names, options in (
        ("text-classification", BertForSequenceClassification, ["bad", "good"], {"top_k": None}),
        ("token-classification", BertForTokenClassification, ["O", "B"], {"ignore_labels": []}),
    ):
        with pytest.warns(UserWarning, match="wants training"):
            model = kind.from_pretrained(minilm, id2label=dict(enumerate(names)))
        with torch.no_grad():
            model.classifier.weight.normal_(generator=torch.Generator().manual_seed(2))
            shares = model(torch.tensor([encoded.ids])).logits[0].softmax(-1)
        model.save_pretrained(tmp_path / task)
        tokenizers[1].save_pretrained(tmp_path / task)
        got = transformers.pipeline(task, str(tmp_path / task), **options)([TEXTS[0]])[0]
        if task == "text-classification":
            best = shares.sort(descending=True)
            assert [row["label"] for row in got] == [names[i] for i in best.indices.tolist()]
        else:
            best = shares[1:-1].max(dim=-1)
            assert [row["word"] for row in got] == encoded.tokens[1:-1]
            assert [row["entity"] for row in got] == [names[i] for i in best.indices.tolist()]
        assert [row["score"] for row in got] == pytest.approx(best.values.tolist(), rel=1e-3)


# ---------------------------------------------------------------- counts
PUBLISHED = {
    "base": ({}, 109_482_240),
    "base, cased": ({"vocab_size": 28996}, 108_310_272),
    "chinese": ({"vocab_size": 21128}, 102_267_648),
    "large": (
        {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
        335_141_888,
    ),
    "tiny": (BertConfig.preset("tiny").to_dict(), 4_385_920),
    "mini": (BertConfig.preset("mini").to_dict(), 11_170_560),
    "small": (BertConfig.preset("small").to_dict(), 28_763_648),
    "medium": (BertConfig.preset("medium").to_dict(), 41_373_184),
    "minilm": (
        {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
        22_713_216,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_of_published_sizes(name):
    fields, want = PUBLISHED[name]
    fields = {key: x for key, x in fields.items() if key != "attn_implementation"}
    config = BertConfig(**fields)
    if name in ("base", "chinese", "large", "tiny", "mini", "small", "medium"):
        assert config == BertConfig.preset(name)
    with torch.device("meta"):
        ours = BertModel(config)
        bare = BertModel(config, add_pooling_layer=False)
        theirs = transformers.BertModel(transformers.BertConfig(**fields))
    assert sum(p.numel() for p in ours.parameters()) == want
    assert sum(p.numel() for p in theirs.parameters()) == want
    assert count_parameters(config) == want
    assert count_parameters(config, pooler=False) == sum(p.numel() for p in bare.parameters())
    if name == "base":
        assert count_parameters(config, pooler=False) == 108_891_648
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


# ---------------------------------------------------------------- real weights, real text
@pytest.fixture(scope="module")
def minilm():
    try:
        return sources.fetch("minilm", progress=False)
    except sources.SourceError as error:
        pytest.skip(f"the source minilm is not here and cannot be fetched: {error}")


TEXTS = [
    "The river bank was covered with grass.",
    "Don't stop-believing: it's 3.14159, e.g. in naïve Zürich — \"ça va?\"",
    "UNAFFABLE unaffable antidisestablishmentarianism",
    "他在河边散步，天气很好。",
    "混合 text 与 English、日本語の文字 한국어",
    "smile 😀 and 👩‍👩‍👧‍👦 and ❤️ end",
    "  tabs\tand\nnew\r\nlines   and\u00a0\u3000spaces\u200b ",
    "İstanbul ﬁnance Ⅷ ½ ™ ÅÄÖ åäö ß",
    "[MASK] in the [SEP] text [UNK]",
    "a" * 120,
    "control\u0000\u0007\ufffd chars",
    "",
]


@pytest.fixture(scope="module")
def tokenizers(minilm):
    ours = BertTokenizer.from_file(minilm / "vocab.txt")
    return ours, transformers.BertTokenizerFast.from_pretrained(minilm)


@pytest.mark.parametrize("text", TEXTS)
def test_tokens(text, tokenizers):
    ours, theirs = tokenizers
    got = ours.encode(text)
    want = theirs(text, return_token_type_ids=True, return_offsets_mapping=True)
    assert got.ids == want["input_ids"]
    assert got.type_ids == want["token_type_ids"]
    assert got.offsets == [tuple(offset) for offset in want["offset_mapping"]]
    assert got.tokens == theirs.convert_ids_to_tokens(want["input_ids"])
    assert ours.decode(got.ids) == theirs.decode(want["input_ids"], skip_special_tokens=True)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.none() | st.text(min_size=1, max_size=30))
def test_tokens_of_anything(tokenizers, text, pair):  # an empty pair is None to transformers
    ours, theirs = tokenizers
    got = ours.encode(text, pair)
    want = theirs(text, pair, return_token_type_ids=True)
    assert (got.ids, got.type_ids) == (want["input_ids"], want["token_type_ids"])


def test_tokens_of_pairs_and_batches(tokenizers):
    ours, theirs = tokenizers
    pairs = [(TEXTS[0], TEXTS[3]), (TEXTS[4], TEXTS[1]), ("", TEXTS[5]), (TEXTS[6], "")]
    for limit in (None, 12, 7):
        got = ours.encode_batch(pairs, max_length=limit)
        want = theirs(
            [a for a, _ in pairs],
            [b for _, b in pairs],
            padding=True,
            truncation="longest_first" if limit else False,
            max_length=limit,
            return_token_type_ids=True,
        )
        assert [e.ids for e in got] == want["input_ids"]
        assert [e.type_ids for e in got] == want["token_type_ids"]
        assert [e.attention_mask for e in got] == want["attention_mask"]
    assert ours.encode(*pairs[0]).ids == theirs(*pairs[0])["input_ids"]  # limits do not linger
    assert ours.vocab_size == len(theirs) == 30522


def test_cased_vocabulary(tokenizers, minilm):
    ours = BertTokenizer.from_file(minilm / "vocab.txt", lowercase=False)
    theirs = transformers.BertTokenizerFast(vocab=str(minilm / "vocab.txt"), do_lower_case=False)
    for text in TEXTS:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_real_weights(attn, minilm, tokenizers):
    """To 1e-5 in fp32 wherever there is a token. On padding itself, which nothing reads, rounding
    grows to 1e-4 in MiniLM, in transformers as here; in fp64 both agree there, too."""
    theirs = transformers.BertModel.from_pretrained(minilm, attn_implementation="eager").eval()
    ours = BertModel.from_pretrained(minilm, attn_implementation=attn, strict=True)
    encoded = tokenizers[0].encode_batch([*TEXTS[:7], (TEXTS[0], TEXTS[3])], max_length=32)
    batch = {
        "input_ids": torch.tensor([e.ids for e in encoded]),
        "token_type_ids": torch.tensor([e.type_ids for e in encoded]),
        "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
    }
    token = batch["attention_mask"].bool()
    assert not token.all()
    for dtype, where, tolerance in (
        (torch.float32, token, 1e-5),
        (torch.float64, torch.ones_like(token), 1e-10),
    ):
        with torch.no_grad():
            got = ours.to(dtype)(**batch, output_hidden_states=True)
            want = theirs.to(dtype)(**batch, output_hidden_states=True)
        for mine, other in zip(got.hidden_states, want.hidden_states, strict=True):
            assert (mine - other)[where].abs().max() < tolerance
        assert (got.pooler_output - want.pooler_output).abs().max() < tolerance


def test_frozen_reference(minilm):
    """What chapter 05 compares with, without transformers, is what both compute."""
    reference = minilm_reference()
    tokenizer = BertTokenizer.from_file(minilm / "vocab.txt")
    model = BertModel.from_pretrained(minilm)
    for sentence in reference["sentences"]:
        encoded = tokenizer.encode(sentence["text"], sentence["pair"])
        assert encoded.ids == sentence["ids"] and encoded.type_ids == sentence["type_ids"]
        ids, types = torch.tensor([encoded.ids]), torch.tensor([encoded.type_ids])
        with torch.no_grad():
            out = model(ids, types, output_hidden_states=True)
        mean = mean_pool(out.last_hidden_state, torch.ones_like(ids))[0]
        cls = torch.stack([states[0, 0, :8] for states in out.hidden_states])
        for got, want in (
            (cls, sentence["cls"]),
            (out.pooler_output[0, :8], sentence["pooler"]),
            (mean[:8], sentence["mean"]),
            (mean.norm(), sentence["norm"]),
        ):
            assert (got - torch.tensor(want)).abs().max() < reference["tolerance"]
