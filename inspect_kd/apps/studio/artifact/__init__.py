"""The Artifact tab, and the artifacts that the Studio offers."""
