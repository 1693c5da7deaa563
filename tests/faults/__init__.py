"""Make the n-th system call of a scenario fail, for all n, and check that every promise holds.

As SQLite's tests do, by strace's fault injection: ``python -m tests.faults`` counts the calls of
each scenario, then plays it once for each of them with that call failing, with an error that a
kernel gives for this call (`calls`). A scenario (`scenarios`) drives a service by QMP and by the
peers of its chardevs; a trial (`trial`) is one service, forked from this process so that nothing is
imported again, to which strace is attached while the scenario acts (`service`).

The promises, whatever fails: the service answers, its other chardevs work, it ends by SIGTERM with
status 0 and without a traceback; a change that failed has left the original working; no byte is
lost or repeated between peers that stayed; what was refused can be done a moment later; when
everything is removed no descriptor is left. A start that fails says why in one line, with status 1.
"""
