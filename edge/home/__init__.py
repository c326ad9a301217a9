"""A made-up home with the truth about it, to see how well the system says what is wrong."""
