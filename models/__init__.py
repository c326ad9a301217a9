"""Model bundles and the code that reads, prepares for and runs them."""
