"""A small convolutional network, to measure what the transformer costs and brings on the same data."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCnn(nn.Module):
    """Four stages of two 3x3 convolutions with batch norm, widths W, 2W, 4W, 8W, each halving the image; mean; linear.

    The plan of VGG (Simonyan and Zisserman 2015, arXiv:1409.1556), with batch norm and a global mean in the place of
    its large linear layers. Pixels [N, 3, S, S] -> logits [N, L].
    """

    def __init__(self, *, labels: int, width: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inputs = 3
        for outputs in (width, 2 * width, 4 * width, 8 * width):
            stages += [*_convolution(inputs, outputs), *_convolution(outputs, outputs), nn.MaxPool2d(2)]
            inputs = outputs
        self.features = nn.Sequential(*stages)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(inputs, labels)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(self.features(pixels).mean(dim=(2, 3))))
        return logits


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
