"""The CPU's own decoder: C++ beside this file, built by the machine's compiler on first use and kept in the cache."""
