"""`headstart serve`: classifiers behind HTTP, one process, photos of many requests in one batch."""

from __future__ import annotations

from collections.abc import Callable

from headstart.errors import HeadstartError


def serve_ready() -> Callable[..., None]:
    """Return `headstart.serve.server.serve`, whose libraries are an extra.

    Raises:
        HeadstartError: when one of them is not installed.
    """
    try:
        import python_multipart  # noqa: F401  (of use only when a form comes, which would be late)

        from headstart.serve.server import serve
    except ImportError as error:
        raise HeadstartError(
            f"headstart serve needs {error.name}, which is not installed.",
            "Install it with: pip install 'headstart[serve]'",
        ) from None
    return serve
