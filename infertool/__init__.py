"""infertool: a command-line operations toolkit for an inference bus."""

from infertool.errors import InferenceError, ModelUnavailableError

__all__ = ["InferenceError", "ModelUnavailableError", "__version__"]

__version__ = "0.1.0"
