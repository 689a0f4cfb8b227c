"""Carrying knowledge from big models into small ones."""
