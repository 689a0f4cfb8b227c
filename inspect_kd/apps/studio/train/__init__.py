"""The Train tab: check a data set, run each training in its own process, read the reports."""
