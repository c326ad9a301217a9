"""The detect service: sensors to incidents in the journal."""
