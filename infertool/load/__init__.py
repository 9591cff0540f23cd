"""Load on the bus: schedules, event bodies and headers, sending, measuring, reports."""
