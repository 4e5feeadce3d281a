"""Entry points of serving engines. Thin: each installs the loader, and none ever raises into the engine."""
