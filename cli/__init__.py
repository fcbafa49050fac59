"""The command ``featstore``: a thin layer over the libraries featstore and probes."""
