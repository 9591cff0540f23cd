"""`infertool doctor`: check settings, servers, model and machine, and name what is wrong."""
