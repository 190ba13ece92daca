"""A small GPT: a causal decoder whose weight matrices are all linear layers.

Shape suffixes: B texts, T tokens of a text, C channels, H heads, V tokens of the vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SmallGPT(nn.Module):
    """Decoder blocks with the norm before each part, as in GPT-2, learned positions.

    In: tokens (B, T) int64, T up to ``context``. Out: logits of the next token (B, T, V).

    Args:
        context: Most tokens at once.
        vocabulary: Tokens that there are.
        mlp_ratio: Width of a block's hidden layer, in channels.
        tied: Whether the head shares the embedding's weights, as in GPT-2: then they stay digital.
            Else the head is a linear layer of its own.
    """

    def __init__(
        self,
        context: int = 64,
        vocabulary: int = 256,
        width: int = 96,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        tied: bool = True,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of heads {heads}")
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(context, width))
        hidden = round(mlp_ratio * width)
        blocks = [_Block(width, heads, hidden) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.head = None if tied else nn.Linear(width, vocabulary)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.positions, std=0.02)
        for block in blocks:  # what adds to the residual stream, as GPT-2 scales it
            for last in (block.projection, block.shrink):
                nn.init.normal_(last.weight, std=0.02 / (2 * depth) ** 0.5)

    def forward(self, x_BT: Tensor) -> Tensor:
        x_BTC = self.embedding(x_BT) + self.positions[: x_BT.shape[1]]
        for block in self.blocks:
            x_BTC = block(x_BTC)
        x_BTC = self.norm(x_BTC)
        if self.head is None:
            return F.linear(x_BTC, self.embedding.weight)
        logits_BTV: Tensor = self.head(x_BTC)
        return logits_BTV


class _Block(nn.Module):
    """Causal attention, then a multilayer perceptron, each added to what comes in."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.shrink = nn.Linear(hidden, width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        batch, tokens, width = x_BTC.shape
        parts = self.qkv(self.norm_attention(x_BTC)).view(batch, tokens, 3, self._heads, -1)
        q_BHTD, k_BHTD, v_BHTD = parts.permute(2, 0, 3, 1, 4)
        seen_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=True)
        seen_BTC = seen_BHTD.transpose(1, 2).reshape(batch, tokens, width)
        x_BTC = x_BTC + self.projection(seen_BTC)
        mixed_BTC: Tensor = self.shrink(F.gelu(self.widen(self.norm_mlp(x_BTC))))
        return x_BTC + mixed_BTC
