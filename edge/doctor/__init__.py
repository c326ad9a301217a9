"""Whether a home's parts really work: each is tried, judged, and said with what to do next."""
