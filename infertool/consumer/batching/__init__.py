"""How many events share a call of the model, and how long a free worker waits for more. Pure: no thread, no clock."""
