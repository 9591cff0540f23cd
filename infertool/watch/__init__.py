"""The live view of a bus: state without a screen, and a Textual application that shows it."""
