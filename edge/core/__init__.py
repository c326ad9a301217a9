"""Pure logic: no files, no sockets, no sleeping; time is an argument."""
