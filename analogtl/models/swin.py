"""A Swin transformer for small images: the paper's network (arXiv 2505.11067, section III).

Everything that multiplies by a trained matrix (patch partition, qkv, projection, MLP, head) is a
plain ``nn.Linear``, because those are what aihwkit puts on arrays. LayerNorms and the tables of
relative positions stay digital.

Shape suffixes: B images, C channels, H and W rows and columns (of pixels or tokens), N = H * W
tokens, M windows, T tokens of a window, A attention heads, D numbers per head, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PatchPartition(nn.Module):
    """Join every ``factor`` x ``factor`` square of tokens into one, by a linear map with bias.

    In: (B, H, W, C). Out: (B, H / factor, W / factor, ``out_features``).
    """

    def __init__(self, in_features: int, out_features: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(in_features * factor**2, out_features)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        batch, height, width, channels = x_BHWC.shape
        f = self.factor
        if f > 1:
            x_BHWC = x_BHWC.view(batch, height // f, f, width // f, f, channels)
            x_BHWC = x_BHWC.permute(0, 1, 3, 2, 4, 5)
            x_BHWC = x_BHWC.reshape(batch, height // f, width // f, f * f * channels)
        return self.linear(x_BHWC)


class WindowAttention(nn.Module):
    """Self-attention inside square windows, which every second block shifts by half a window.

    All heads of a block share one table of relative positions, ``(2 * window - 1)**2`` scalars. A
    shifted window that straddles the image's border mixes tokens of opposite sides; a mask keeps
    those from attending to each other. A window that covers the whole image is not shifted: there
    is nothing beyond it to see.

    In and out: (B, H, W, C), where H = W = ``resolution``.
    """

    position_index_TT: Tensor
    mask_MTT: Tensor | None

    def __init__(
        self, dim: int, heads: int, head_dim: int, resolution: int, window: int, shifted: bool
    ) -> None:
        super().__init__()
        window = min(window, resolution)
        self.heads, self.window, self.scale = heads, window, head_dim**-0.5
        self.shift = window // 2 if shifted and window < resolution else 0
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.proj = nn.Linear(heads * head_dim, dim)
        self.position_table = nn.Parameter(torch.empty((2 * window - 1) ** 2))
        nn.init.trunc_normal_(self.position_table, std=0.02)
        # Not persistent: both follow from the sizes, and a checkpoint is for what was trained.
        self.register_buffer("position_index_TT", position_index(window), persistent=False)
        mask = shift_mask(resolution, window, self.shift) if self.shift else None
        self.register_buffer("mask_MTT", mask, persistent=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        batch, height, width, _ = x_BHWC.shape
        qkv_BHWC = self.qkv(x_BHWC)
        if self.shift:
            qkv_BHWC = torch.roll(qkv_BHWC, (-self.shift, -self.shift), dims=(1, 2))
        w, rows, columns = self.window, height // self.window, width // self.window
        qkv = qkv_BHWC.view(batch, rows, w, columns, w, 3, self.heads, -1)
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7)  # 3, B, rows, columns, A, w, w, D
        q, k, v = qkv.reshape(
            3, batch, rows * columns, self.heads, w * w, -1
        )  # each (B, M, A, T, D)

        bias = self.position_table[self.position_index_TT]
        if self.mask_MTT is not None:
            bias = (bias + self.mask_MTT)[:, None]  # (M, 1, T, T)
        attention = ((q * self.scale) @ k.transpose(-2, -1) + bias).softmax(dim=-1)
        out = attention @ v  # (B, M, A, T, D)

        out = out.view(batch, rows, columns, self.heads, w, w, -1).permute(0, 1, 4, 2, 5, 3, 6)
        out_BHWC = out.reshape(batch, height, width, -1)
        if self.shift:
            out_BHWC = torch.roll(out_BHWC, (self.shift, self.shift), dims=(1, 2))
        return self.proj(out_BHWC)


def position_index(window: int) -> Tensor:
    """Find the entry of the flat position table for each pair of tokens of a window, (T, T)."""
    axis = torch.arange(window)
    place_T2 = torch.cartesian_prod(axis, axis)
    offset_TT2 = place_T2[None, :] - place_T2[:, None] + window - 1
    return offset_TT2[..., 0] * (2 * window - 1) + offset_TT2[..., 1]


def shift_mask(resolution: int, window: int, shift: int) -> Tensor:
    """Make the mask of shifted windows: 0, or -inf between opposite sides; (M, T, T).

    After the shift the last ``shift`` rows and columns came from the other side of the image, so
    tokens of one window may attend to each other only if both or neither did, per axis.
    """
    wrapped = torch.arange(resolution) >= resolution - shift
    region_HW = 2 * wrapped[:, None].long() + wrapped[None, :].long()
    count = resolution // window
    region = region_HW.view(count, window, count, window).transpose(1, 2)
    region_MT = region.reshape(count * count, window * window)
    apart_MTT = region_MT[:, :, None] != region_MT[:, None, :]
    return torch.zeros(apart_MTT.shape).masked_fill(apart_MTT, -torch.inf)


class Block(nn.Module):
    """Pre-norm residual block: window attention, then a GELU MLP. (B, H, W, C) to the same."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        resolution: int,
        window: int,
        mlp_ratio: float,
        shifted: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, heads, head_dim, resolution, window, shifted)
        self.norm2 = nn.LayerNorm(dim)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC + self.attention(self.norm1(x_BHWC))
        return x_BHWC + self.mlp(self.norm2(x_BHWC))


class SmallImageSwin(nn.Module):
    """A Swin transformer for small square images.

    Stage i joins ``downscaling[i]`` x ``downscaling[i]`` tokens (pixels, for the first stage) into
    one of ``embed_dim * 2**i`` numbers, then applies ``depths[i]`` blocks with ``num_heads[i]``
    heads of ``head_dim`` each, every second one with shifted windows. The tokens of the last stage
    are averaged, normalised and classified by one linear layer.

    In: (B, C, H, W), H = W = ``img_size``. Out: logits (B, K).

    Raises:
        ValueError: if the sizes do not fit one another; the message names the one at fault.

    Source: Liu et al., "Swin Transformer", 2021; sizes as in arXiv 2505.11067 for the defaults:
    26,592,494 parameters with a head for two classes. The published counts (26,591,906 for two
    classes, 26,594,213 for five) leave out the 588 scalars of the position tables.
    """

    def __init__(
        self,
        img_size: int = 32,
        in_chans: int = 3,
        num_classes: int = 10,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        head_dim: int = 32,
        downscaling: Sequence[int] = (2, 2, 2, 1),
        window_size: int = 4,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if not len(depths) == len(num_heads) == len(downscaling) > 0:
            raise ValueError("depths, num_heads and downscaling need one entry per stage each")
        self.img_size, self.in_chans = img_size, in_chans
        resolution, width_in = img_size, in_chans
        stages = []
        for i, (depth, heads, factor) in enumerate(
            zip(depths, num_heads, downscaling, strict=True)
        ):
            if resolution % factor:
                raise ValueError(
                    f"downscaling: {factor} does not divide the {resolution} x {resolution} "
                    f"that enter stage {i + 1}"
                )
            resolution //= factor
            if resolution % min(window_size, resolution):
                raise ValueError(
                    f"window_size: {window_size} does not divide the {resolution} x {resolution} "
                    f"tokens of stage {i + 1}"
                )
            width = embed_dim * 2**i
            blocks = [
                Block(width, heads, head_dim, resolution, window_size, mlp_ratio, bool(j % 2))
                for j in range(depth)
            ]
            stages.append(nn.Sequential(PatchPartition(width_in, width, factor), *blocks))
            width_in = width
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width_in)
        self.reset_classifier(num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if x_BCHW.shape[1:] != (self.in_chans, self.img_size, self.img_size):
            expected = (self.in_chans, self.img_size, self.img_size)
            raise ValueError(f"images of shape {expected} expected, not {tuple(x_BCHW.shape[1:])}")
        tokens_BHWC = self.stages(x_BCHW.permute(0, 2, 3, 1).contiguous())
        return self.head(self.norm(tokens_BHWC.mean(dim=(1, 2))))

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new head of ``num_classes`` in place."""
        self.head = nn.Linear(self.norm.normalized_shape[0], num_classes)
