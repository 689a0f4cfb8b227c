"""The Zones tab: draw places of the part that are ignored, or that tolerate another amount of heat."""
