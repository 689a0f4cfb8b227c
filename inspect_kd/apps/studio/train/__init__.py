"""The Train tab: check a data set, run trainings as processes of their own, read their reports."""
