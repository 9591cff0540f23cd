"""`infertool serve-model`: a model behind HTTP."""
