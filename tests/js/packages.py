"""The npm packages of the JavaScript tests, at exact versions."""

PHOENIX = {"phoenix": "1.8.16"}
NODE_CLIENT = {**PHOENIX, "ws": "8.18.0"}
BROWSER = {"playwright-core": "1.56.1", "axe-core": "4.13.0"}
HISTOGRAM = {"hdr-histogram-js": "3.0.1"}
