"""Distillation: losses and stages that transfer what large models know to small ones."""
