"""A network of your own, to change as you like; [model] file names it.

`build` is called with the number of classes, the height and width of the images in pixels, their
channels, and whatever [model] kwargs holds. It returns a torch.nn.Module that takes images
(batch, channels, height, width) and returns a number for each class, (batch, n_classes). Random
numbers come from torch, which is seeded. The file may import what is installed, but no file beside
it. `analogtl explain models` says what goes onto arrays, and how a head is found.
"""

from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, n_classes: int, image_size: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(width * (image_size // 2) ** 2, 32),
            nn.ReLU(),
        )
        self.head = nn.Linear(32, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def build(n_classes: int, image_size: int, in_channels: int, width: int = 8) -> nn.Module:
    return Net(n_classes, image_size, in_channels, width)
