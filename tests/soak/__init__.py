"""The soak test: ``python -m tests.soak MINUTES``, or ``just soak MINUTES``.

A service in a process of its own carries consoles whose backends are changed without end,
some with a crowd of clients who come and go, while faults happen to it. Every byte is checked, in both directions; memory and descriptors are
measured.

    __main__   the command line, the run, the figures
    console    one console: a bridge of which one side is changed, with its bytes' checker
    crowd      a console with a crowd: such a bridge, whose other side has many clients
    watching   what they see and type, with their checkers
    places     what a console is changed to, with the peers at the other end
    faults     what goes wrong meanwhile
    shortage   with --short: the resource that is short, for spells
    hog        takes the watches of a user
    meter      the service's process: memory, descriptors, life
    served     the service, with a thread that says how much memory is in use
"""
