"""What web pages in somebody's browser may not do here: post without being asked, or read under a name turned to us.

A gateway that asks for no API keys trusts whoever reaches it, and a browser on the same machine reaches it for any page
that is open in it. Where keys are asked for, no page has one, since a key is no cookie; so names and origins are not
asked after. Bodies are JSON for everybody: a form cannot send that type, and a script of another origin only where it
is given leave (CORS), which nobody is.
"""

from aiohttp import hdrs, web

from gateway.problems import Problem
from serving.hosts import Hosts

HOSTS: web.AppKey[Hosts] = web.AppKey("hosts", Hosts)

JSON = "application/json"
SHOWN_MAX = 200  # characters of a strange header that are repeated
_FETCH_SITE = "Sec-Fetch-Site"
_OWN = ("same-origin", "none")  # none: the user asked for it, and no page


def refuse_rebound(request: web.Request) -> None:
    """Raise Problem 403 where the caller knows this gateway by a name that anybody could have turned to it."""
    host = request.headers.get(hdrs.HOST)
    if not request.app[HOSTS].allow(host):
        detail = f"The setting 'hosts' does not list the name in the Host header, {(host or '')[:SHOWN_MAX]!r}."
        raise Problem(403, "host-not-listed", detail)


def refuse_foreign(request: web.Request) -> None:
    """Raise Problem 403 where a page of another origin posts.

    Browsers say in `Sec-Fetch-Site` whose page it is, where they trust the connection, and name its origin in each
    POST; other programs send neither.
    """
    site, origin = request.headers.get(_FETCH_SITE), request.headers.get(hdrs.ORIGIN)
    if site is None:
        if origin is None or origin.partition("://")[2].lower() == request.headers.get(hdrs.HOST, "").lower():
            return
    elif site in _OWN:
        return
    whose = f"of the origin {origin[:SHOWN_MAX]!r}" if origin is not None else "of another origin"
    raise Problem(403, "foreign-page", f"A web page {whose} may not post to a gateway that asks for no API keys.")


def refuse_other_types(request: web.Request) -> None:
    """Raise Problem 415 where a body is not sent as JSON, or something else is announced."""
    found = request.headers.get(hdrs.CONTENT_TYPE)
    if found is None:
        if not request.body_exists:
            return
        raise Problem(415, "not-json-type", f"The body has no Content-Type; expected {JSON}.")
    if found != JSON and request.content_type != JSON:
        raise Problem(415, "not-json-type", f"The Content-Type is {found[:SHOWN_MAX]!r}; expected {JSON}.")
