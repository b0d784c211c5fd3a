"""What is measured of rpyserve: speed, scale, robustness, conformance to the RFCs, live reload.

Each program is started as a module, from the directory of this checkout, such as ``python -m
benchmarks.performance.run``. Each says with ``--help`` what it does, and ends with 1 if a promise
is not kept. What they share is in `common`; otherwise no folder knows of another, except that
`scale` has the baseline loop and the load of `performance`, and `robustness.fuzz` changes the rules
of `conformance`.
"""
