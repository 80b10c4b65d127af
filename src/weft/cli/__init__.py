"""The `weft` command: parse, call a workflow, print. Loads no torch until a command needs it."""
