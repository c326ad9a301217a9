"""Links to wearables beside the dongle's serial port: Bluetooth and the broker."""
