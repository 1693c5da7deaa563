"""The soak test: ``python -m tests.soak MINUTES``, or ``just soak MINUTES``.

A service in a process of its own carries consoles whose backends are changed without end,
while faults are put in its way. Every byte is checked, in both directions; memory and
descriptors are measured.

    __main__   the command line, the run, the figures
    console    one console: a bridge of which one side is changed, and who checks its bytes
    places     what a console is changed to, and who is at the other end
    faults     what goes wrong meanwhile
    shortage   with --short: what there is too little of, for spells
    hog        takes the watches of a user
    meter      the service's process: memory, descriptors, life
    served     the service, with a thread that says how much memory is in use
"""
