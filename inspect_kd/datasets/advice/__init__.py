"""Advice on the sound pictures of a data set: what should be changed about them or about the training, and why. Imports no torch."""

from inspect_kd.datasets.advice.advice import TOPICS, Advice, Topic
from inspect_kd.datasets.advice.advise import advise, advise_on_pictures, read_pictures, sound_samples
from inspect_kd.datasets.advice.sound_picture import SoundPicture, choose_samples, measure_picture

__all__ = [
    "TOPICS",
    "Advice",
    "SoundPicture",
    "Topic",
    "advise",
    "advise_on_pictures",
    "choose_samples",
    "measure_picture",
    "read_pictures",
    "sound_samples",
]
