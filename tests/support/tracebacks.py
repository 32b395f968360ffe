"""What a report of an exception can show."""

from traceback import TracebackException


def shown_with_locals(error: BaseException) -> str:
    """Return the tracebacks, with captured locals, of an exception and of all that are linked to it.

    That includes contexts that Python itself does not print, because of a cause or of `from None`.
    """
    shown: list[str] = []
    found: list[BaseException | None] = [error]
    seen: set[int] = set()
    while found:
        link = found.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            found += [link.__cause__, link.__context__]
            shown += TracebackException(type(link), link, link.__traceback__, capture_locals=True).format(chain=False)
    return "".join(shown)
