"""Peers that send input which costs work and gives nothing, at full speed, beside a QMP client.

No peer, whatever it sends, keeps others waiting. `tests/test_hostile.py` counts the work of each
step, on any machine; ``python -m tests.hostile``, or `just hostile`, measures a service's waits.
"""
