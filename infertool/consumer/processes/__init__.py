"""Worker processes, which call the model: started by spawn, asked over a socket, replaced when they die."""
