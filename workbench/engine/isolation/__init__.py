"""Where an engine runs: in a thread of this process or in a child process, with one surface."""
