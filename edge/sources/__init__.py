"""Sensors in: each source turns bytes from a device into chunks."""
