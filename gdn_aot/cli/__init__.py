"""The command line. Each command is one module, imported only when it is run or its help is asked for."""
