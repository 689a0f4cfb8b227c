"""The HTTP side of the Studio: start and stop, guards around Gradio's application, uploads, temporary folders."""
