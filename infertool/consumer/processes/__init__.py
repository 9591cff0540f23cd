"""Running the model in worker processes: started by spawn, asked over a socket, replaced when they die."""
