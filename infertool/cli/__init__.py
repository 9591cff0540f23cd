"""The command line: one file a subcommand; parse, call, print."""
