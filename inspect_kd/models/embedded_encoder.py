"""The encoder that comes with the package: plain 3x3 convolutions with BatchNorm, features at strides 4, 8 and 16.

TeacherInfo by `inspect_kd.distill.encoder` to give the features of an ImageNet MobileNetV2 on drawn scenes. Plain convolutions
on purpose: BatchNorm folds into them, they survive int8, and a FLOP of theirs costs a CPU a fourth of a depthwise one's.

Shapes: B batch, H W image.
"""

from __future__ import annotations

from torch import Tensor, nn

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
CHANNELS = (24, 32, 96)


class EmbeddedEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.channels = CHANNELS
        self.stem = nn.Sequential(_conv(3, 16, stride=2), _conv(16, 24, stride=2), Residual(24))
        self.middle = nn.Sequential(_conv(24, 48, stride=2), Residual(48), Residual(48))
        self.deep = nn.Sequential(_conv(48, 96, stride=2), Residual(96), Residual(96))
        # The teacher's features are not rectified: a linear head a level.
        self.heads = nn.ModuleList(nn.Conv2d(width, out, 1) for width, out in zip((24, 48, 96), CHANNELS, strict=True))

    def forward(self, images_B3HW: Tensor) -> list[Tensor]:
        fine = self.stem(images_B3HW)
        middle = self.middle(fine)
        return [head(x) for head, x in zip(self.heads, (fine, middle, self.deep(middle)), strict=True)]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.activate = nn.ReLU(inplace=True)

    def forward(self, x_BChw: Tensor) -> Tensor:
        activated: Tensor = self.activate(x_BChw + self.body(x_BChw))
        return activated


def _conv(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )
