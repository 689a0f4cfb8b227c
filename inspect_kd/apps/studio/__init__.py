"""The Studio: inspect parts in a browser, move thresholds, mark wrong calls, compare artifacts, train.

Unusual here: only `app`, the `*_tab` modules, `api`, `sessions` and `theme` know Gradio. What is decided, counted, drawn and stored
lives in modules that a test drives without a browser.
"""
