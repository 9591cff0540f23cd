"""Models: the port, the loader, the cache, and the adapters for Python code, ONNX files and model servers."""
