"""From files to arrays on the device."""
