"""The guided set-up of a home: what to ask, what is written, and how it is tried on the spot."""
