"""The embedded hub as a program, with no limit on how far a viewer may be behind, or how long it may be silent.

A test's viewer is behind while the machine is busy. The hub would end it, and the test would miss what is broadcast.
"""

from __future__ import annotations

import sys
from functools import partial

from infertool.embedded.channel_server import __main__ as command
from infertool.embedded.channel_server.channels import Hub, Limits

UNBOUNDED = 1 << 40
PATIENT = Limits(
    viewer_messages=UNBOUNDED, max_unsent_bytes=UNBOUNDED, all_messages=UNBOUNDED, all_bytes=UNBOUNDED,
    send_timeout_s=3600.0, idle_s=3600.0,
)  # fmt: skip

if __name__ == "__main__":
    vars(command)["Hub"] = partial(Hub, limits=PATIENT)
    sys.exit(command.main())
