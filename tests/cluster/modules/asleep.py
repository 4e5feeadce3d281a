"""Importing this takes an hour."""

import time

time.sleep(3600)
