"""``python -m gdn_aot`` is the same as the command ``gdn-aot``."""

from gdn_aot.cli.main import main

if __name__ == "__main__":
    main()
