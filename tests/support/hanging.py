"""A model of which one process hangs while it warms up."""

from __future__ import annotations

from pathlib import Path


def hangs_at_start(folder: Path, number: int) -> tuple[Path, str]:
    """Write a model whose `warm_up` hangs in the process that starts as that `number`.

    Return the folder in which each start leaves a file, and the model's spec. An event `{"do": "exit"}` ends its
    process.
    """
    starts, model = folder / "starts", folder / "hangs.py"
    starts.mkdir()
    model.write_text(f"""
import os, time

class Model:
    def warm_up(self):
        open({str(starts)!r} + f"/{{os.getpid()}}", "w").close()
        if len(os.listdir({str(starts)!r})) == {number}:
            time.sleep(3600)

    def predict(self, payload):
        if payload.get("do") == "exit":
            os._exit(1)
        return {{"pid": os.getpid()}}
""")
    return starts, f"{model}:Model"
