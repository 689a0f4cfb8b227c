"""Programs with a face of their own: the Studio."""
