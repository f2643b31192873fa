"""The synthetic thorax."""

MANUFACTURER = "lpdirs synthetic thorax"  # in its files, with Synthetic Data (0008,001C): nobody is meant
