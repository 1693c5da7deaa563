"""How the soak test measures."""

from __future__ import annotations

import trio

from tests.soak.served import LeftScopes, measure

LEFT = 900  # as many as Trio keeps


def test_scopes_that_were_left_are_kept_by_trio_and_not_measured() -> None:
    left = LeftScopes()

    async def blocks() -> int:
        return (await trio.to_thread.run_sync(measure))[0]

    async def main() -> tuple[int, int, int]:
        with trio.fail_after(60):  # earlier than theirs
            await trio.to_thread.run_sync(left.forget)
            before = await blocks()
            for _ in range(LEFT):
                with trio.move_on_after(600):  # noqa: ASYNC100 - it is left at once
                    pass
            kept = await blocks()
            await trio.to_thread.run_sync(left.forget)
            return before, kept, await blocks()

    before, kept, after = trio.run(main, instruments=[left])
    assert kept > before + 3 * LEFT  # else `LeftScopes` is no longer needed
    assert after < before + LEFT // 10
