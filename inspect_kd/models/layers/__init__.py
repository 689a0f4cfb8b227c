"""Layers and modules that several models share."""
