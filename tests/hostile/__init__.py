"""Peers that send what takes work and brings nothing, at full speed, beside a client of QMP.

No peer, whatever it sends, keeps others waiting: `tests/test_hostile.py` counts the work of each
step, on any machine, ``python -m tests.hostile`` measures the waits of a service, `just hostile`.
"""
