"""The Compare tab: a second artifact inspects the same parts."""
