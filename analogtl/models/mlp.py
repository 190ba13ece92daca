"""A multilayer perceptron on pixels: the smallest network here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class PixelMLP(nn.Module):
    """Hidden layers with ReLU on the pixels of one image.

    In: (B, C, H, W), H = W = ``img_size``. Out: logits (B, K).
    """

    def __init__(
        self,
        img_size: int = 8,
        in_chans: int = 1,
        num_classes: int = 10,
        hidden: Sequence[int] = (64, 32),
    ) -> None:
        super().__init__()
        widths = [in_chans * img_size**2, *hidden]
        self.num_features = widths[-1]
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.reset_classifier(num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.head(self.body(x_BCHW))
        return logits_BK

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new head of ``num_classes`` in place."""
        self.head = nn.Linear(self.num_features, num_classes)
