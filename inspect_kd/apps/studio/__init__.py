"""The Studio: inspect parts in a browser, move thresholds, mark wrong calls, compare artifacts, train.

One package per tab (`inspect`, `compare`, `artifact`, `train`), each with its view, its events and its endpoints; `server` holds the
HTTP side. Only `app`, `theme`, `handlers` and the modules named `tab`, `events`, `form`, `panel` and `endpoints` import Gradio: the
rest runs in tests without a browser.
"""
