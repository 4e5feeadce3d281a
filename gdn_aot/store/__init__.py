"""The directory on a machine that artifacts are installed in: reading it, installing, and looking after it."""
