"""The Studio: inspect-kd in a browser, on Gradio, without torch."""
