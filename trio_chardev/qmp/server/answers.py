"""What a monitor replies to a request: the result of its command, or an error."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from trio_chardev import importing
from trio_chardev.errors import ChardevError, OptionsError
from trio_chardev.qmp.commands.context import Command, Context
from trio_chardev.qmp.server.session import QmpError, Request

log = logging.getLogger(__name__)

AT_ONCE = frozenset(
    {"qmp_capabilities", "query-version", "query-commands", "query-chardev", "quit"}
)
"""Commands that use nothing that is imported later."""

TOLD = ("id", "device", "qom-type", "driver", "chardev", "backend.type", "fdname", "protocol")
LOGGED = 80  # characters of each argument in the log
LONGEST_DESC = 16 << 10  # characters; errors quote what the client sent


def waits(commands: Mapping[str, Command], context: Context, request: Request) -> bool:
    """Will the command wait, or may it?"""
    if request.error is not None:
        return False
    if request.name not in AT_ONCE and not importing.is_done():
        return request.name in commands
    try:
        command = commands.get(request.name)
    except OptionsError:  # it can't be imported, which `answer_now` tells
        return False
    if command is None:
        return False
    return command.waits(context, request.arguments)


def answer_now(
    commands: Mapping[str, Command], context: Context, request: Request
) -> dict[str, Any]:
    """Run a command that does not wait, and return the reply."""
    try:
        return {"return": _call(commands, context, request)}
    except Exception as exc:
        return _error(exc)


async def answer(
    commands: Mapping[str, Command], context: Context, request: Request
) -> dict[str, Any]:
    """Run any command, and return the reply."""
    try:
        if request.name not in AT_ONCE:
            await importing.have_all()
        result = _call(commands, context, request)
        return {"return": await result if inspect.isawaitable(result) else result}
    except Exception as exc:
        return _error(exc)


def _call(commands: Mapping[str, Command], context: Context, request: Request) -> Any:
    """Run the command; return its result, or the coroutine that gives it."""
    command = context.session.check(request, commands)
    if request.is_oob and not command.allow_oob:
        raise QmpError(f"The command {request.name} does not support OOB")
    if log.isEnabledFor(logging.DEBUG):
        shown = _shown(request.arguments)
        id = context.chardev.id if context.chardev is not None else ""
        log.debug("QMP '%s': %s%s", id, request.name, shown)
    return command.run(context, request.arguments)


def _shown(arguments: dict[str, Any]) -> str:
    """Show the arguments that say what the command is about, for the log: no secrets."""
    given = dict(arguments)
    if isinstance(backend := given.get("backend"), dict):
        given["backend.type"] = backend.get("type")
    return "".join(
        f" {name}={given[name][:LOGGED]}" for name in TOLD if isinstance(given.get(name), str)
    )


def _error(exc: Exception) -> dict[str, Any]:
    """Make the reply to a command that raised *exc*."""
    error_class, desc = "GenericError", str(exc)
    if isinstance(exc, QmpError):
        error_class = exc.error_class
    elif not isinstance(exc, ChardevError):
        log.exception("a command failed in a way that it must not", exc_info=exc)
        desc = f"{type(exc).__name__}: {desc}"
    _forget_frames(exc)
    return {"error": {"class": error_class, "desc": desc[:LONGEST_DESC]}}


def _forget_frames(exc: BaseException) -> None:
    """Free the local variables of the frames in the tracebacks of *exc* and its causes.

    A frame that has a variable for its exception is in a cycle with it, and keeps all that a client
    has sent until the garbage collector runs, which is rare in a service.
    """
    to_do = [exc]
    while to_do:
        done = to_do.pop()
        if done.__traceback__ is not None:
            done.__traceback__ = None
            to_do += (other for other in (done.__cause__, done.__context__) if other is not None)
            if isinstance(done, BaseExceptionGroup):
                to_do += done.exceptions
