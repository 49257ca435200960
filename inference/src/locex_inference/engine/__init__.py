"""The engine: what happens to a request between its arrival and its reply, the same for every transport."""
