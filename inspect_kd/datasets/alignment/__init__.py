"""Alignment: find the part in an image and move it into the reference frame. No torch; training and the line share it."""

from inspect_kd.datasets.alignment.alignment import Aligned, Alignment
from inspect_kd.datasets.alignment.fit import AlignmentChoice, Method, choose_alignment
from inspect_kd.datasets.alignment.pose import NotFound, Pose, corners_in_image, cut_frame, cut_shrunk, heatmap_in_image

__all__ = [
    "Aligned",
    "Alignment",
    "AlignmentChoice",
    "Method",
    "NotFound",
    "Pose",
    "choose_alignment",
    "corners_in_image",
    "cut_frame",
    "cut_shrunk",
    "heatmap_in_image",
]
