"""``import gdn_aot.auto`` installs the loader, with the settings of the environment."""

from gdn_aot import install

install()
