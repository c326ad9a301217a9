"""The fallwatch daemon: sensors to incidents, incidents to people and the care record."""
