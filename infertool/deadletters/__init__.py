"""Dead letters: what is written on one."""
