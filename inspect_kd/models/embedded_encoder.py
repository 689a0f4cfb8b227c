"""The encoder shipped with the package: plain 3x3 convolutions with BatchNorm, features at strides 4, 8 and 16.

Trained by `inspect_kd.distill.encoder` to predict the features of an ImageNet MobileNetV2 on drawn scenes. The convolutions are
plain because BatchNorm folds into them, int8 hardly harms them, and on a CPU they take a quarter of the time per FLOP that depthwise
convolutions take.

Shapes: B batch, H W image.
"""

from __future__ import annotations

from torch import Tensor, nn

from inspect_kd.models.layers.convolution import conv_bn_relu

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
CHANNELS = (24, 32, 96)


class EmbeddedEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.channels = CHANNELS
        self.stem = nn.Sequential(conv_bn_relu(3, 16, stride=2), conv_bn_relu(16, 24, stride=2), Residual(24))
        self.middle = nn.Sequential(conv_bn_relu(24, 48, stride=2), Residual(48), Residual(48))
        self.deep = nn.Sequential(conv_bn_relu(48, 96, stride=2), Residual(96), Residual(96))
        # The teacher's features are not rectified, so each level has a linear head.
        self.heads = nn.ModuleList(nn.Conv2d(width, out, 1) for width, out in zip((24, 48, 96), CHANNELS, strict=True))

    def forward(self, images_B3HW: Tensor) -> list[Tensor]:
        fine = self.stem(images_B3HW)
        middle = self.middle(fine)
        return [head(x) for head, x in zip(self.heads, (fine, middle, self.deep(middle)), strict=True)]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn_relu(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.activate = nn.ReLU(inplace=True)

    def forward(self, x_BChw: Tensor) -> Tensor:
        activated: Tensor = self.activate(x_BChw + self.body(x_BChw))
        return activated
