"""STOMP 1.2 brokers (ActiveMQ Classic first of all), on stomp.py.

stomp.py connects and speaks the commands, through its public override points. Its reader, its heartbeats and its
reconnecting are replaced, each for the reason given where that is done.
"""

import os

# stomp.py asks the name service for this machine's names on import, which takes seconds where it does not answer.
os.environ.setdefault("STOMP_SKIP_HOSTNAME_SCAN", "1")
