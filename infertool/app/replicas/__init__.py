"""infertool.app.replicas."""
