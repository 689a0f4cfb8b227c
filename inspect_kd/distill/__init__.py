"""Distillation: the losses and stages that train a student on labels and on the outputs of its teachers."""
