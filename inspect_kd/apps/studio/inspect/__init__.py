"""The Inspect tab: upload parts, see decisions and heatmaps, move thresholds, mark wrong calls."""
