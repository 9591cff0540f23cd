"""The live view of `infertool watch`: the state of a bus without a screen, and a Textual application that shows it."""
