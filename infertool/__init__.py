"""infertool: a command-line operations toolkit for an inference bus."""

from infertool.errors import InferenceError

__all__ = ["InferenceError", "__version__"]

__version__ = "0.1.0"
