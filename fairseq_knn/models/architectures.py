"""Architectures that published checkpoints name and stock fairseq lacks."""

from typing import Any

from fairseq.models import register_model_architecture
from fairseq.models.transformer import transformer_vaswani_wmt_en_de_big


@register_model_architecture("transformer", "transformer_wmt19_de_en")
def transformer_wmt19_de_en(args: Any) -> None:
    """The German-English model of Ng et al. 2019 (arXiv 1907.06616), the usual base of kNN-MT.

    Transformer big with an encoder feed-forward dimension of 8192, and tied decoder embeddings.
    """
    args.encoder_ffn_embed_dim = getattr(args, "encoder_ffn_embed_dim", 8192)
    args.dropout = getattr(args, "dropout", 0.2)
    args.share_decoder_input_output_embed = getattr(args, "share_decoder_input_output_embed", True)
    transformer_vaswani_wmt_en_de_big(args)
