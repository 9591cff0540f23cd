"""Where notifications go: Phoenix, Alertmanager, a webhook, a command; each with a queue and a thread of its own."""
