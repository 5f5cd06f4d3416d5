"""`tenure serve --workers N`: one parent that serves nothing, and N workers that share its port.

Each worker is a whole server in a process of its own, started afresh and never forked, since gRPC does not
outlive a fork. All listen on the port with SO_REUSEPORT, and the kernel deals connections out. A worker and
its parent hold the ends of a socket pair, the worker's as its standard input:

- the worker says on it whether it is ready, or which settings cannot work, one JSON object a line;
- its end, however the parent ends, SIGKILL included, tells the worker to drain and go.
"""
