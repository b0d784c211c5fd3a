"""Many sessions, many connections, and the start of the process; they write docs/scale.md."""
