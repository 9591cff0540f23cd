"""Message brokers behind one port."""
