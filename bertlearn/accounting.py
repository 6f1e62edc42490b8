"""What a BERT costs: its parameters, table by table, and its arithmetic. Built in chapter 05."""

from __future__ import annotations

from bertlearn.config import BertConfig

__all__ = ["count_parameters", "forward_flops_per_token", "parameter_table"]


def parameter_table(config: BertConfig, pooler: bool = True) -> dict[str, int]:
    """Parameters of ``BertModel``, summed by part, from the sizes alone.

    Args:
        config: the sizes.
        pooler: count the pooler.

    Returns:
        numbers of parameters by part, in the order in which a token meets them. A part that
        every layer has is counted over all layers.
    """
    hidden, wide = config.hidden_size, config.intermediate_size
    layers = config.num_hidden_layers
    norm = 2 * hidden  # a gain and a shift
    table = {
        "token embeddings": config.vocab_size * hidden,
        "position embeddings": config.max_position_embeddings * hidden,
        "segment embeddings": config.type_vocab_size * hidden,
        "embeddings LayerNorm": norm,
        "query, key, value": layers * 3 * (hidden * hidden + hidden),
        "attention output": layers * (hidden * hidden + hidden),
        "attention LayerNorm": layers * norm,
        "feed-forward, widen": layers * (hidden * wide + wide),
        "feed-forward, narrow": layers * (wide * hidden + hidden),
        "feed-forward LayerNorm": layers * norm,
    }
    if pooler:
        table["pooler"] = hidden * hidden + hidden
    return table


def count_parameters(config: BertConfig, pooler: bool = True) -> int:
    """The sum of ``parameter_table``: 109,482,240 for BERT-base, uncased."""
    return sum(parameter_table(config, pooler).values())


def forward_flops_per_token(config: BertConfig, seq: int) -> int:
    """Floating point operations of the encoder's matrix products, for one token, forward.

    A product of ``(m, k)`` and ``(k, n)`` costs ``2 m k n``: a multiplication and an addition
    for each term. Lookups, softmax, LayerNorm and activations are left out (about 1 %).
    Training costs three times as much: the backward pass makes two products for each one.

    Args:
        config: the sizes.
        seq: tokens in the sequence; only the scores and the mix grow with it.
    """
    hidden, wide = config.hidden_size, config.intermediate_size
    projections = 4 * 2 * hidden * hidden  # query, key, value, output
    feed_forward = 2 * 2 * hidden * wide
    scores_and_mix = 2 * 2 * seq * hidden
    return config.num_hidden_layers * (projections + feed_forward + scores_and_mix)
