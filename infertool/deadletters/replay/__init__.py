"""infertool.deadletters.replay."""
