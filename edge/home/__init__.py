"""A home that is made up, with the truth about it: how well does the system say what is wrong?"""
