"""`infertool config`: show settings and where they come from; write a settings file."""
