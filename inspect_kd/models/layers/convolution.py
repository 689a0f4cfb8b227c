"""A 3x3 convolution with BatchNorm and ReLU, which several networks use."""

from __future__ import annotations

from torch import nn


def conv_bn_relu(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )
