"""Advice on pictures: what the sound pictures of a data set call for, each with its number, a picture and a remedy. No torch."""

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
