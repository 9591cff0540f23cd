"""The consumer: intake, execution, delivery, settlement."""
