"""What web pages in somebody's browser may not do here: post without being asked, or read under a name turned to us.

A gateway that asks for no API keys trusts whoever reaches it, and a browser on the same machine reaches it for any page
that is open in it. Where keys are asked for, no page has one, since a key is no cookie; so names and origins are not
asked after. Bodies are JSON for everybody: a form cannot send that type, and a script of another origin only where it
is given leave (CORS), which nobody is.
"""

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy, istr

from gateway.problems import Problem
from serving.hosts import Hosts

HOSTS: web.AppKey[Hosts] = web.AppKey("hosts", Hosts)

JSON = "application/json"
SHOWN_MAX = 200  # characters of a strange header that are repeated
_FETCH_SITE = istr("Sec-Fetch-Site")  # of the headers' own kind of text, which is not folded for each request
_OWN = ("same-origin", "none")  # none: the user asked for it, and no page


def refuse_pages(request: web.Request) -> None:
    """Raise Problem 403 for what a stranger's web page may have sent.

    That is a request under a name that anybody could have turned to this address, or a POST of another origin's page.
    """
    headers = request.headers
    host = headers.get(hdrs.HOST)
    if not request.app[HOSTS].allow(host):
        detail = f"The setting 'hosts' does not list the name in the Host header, {(host or '')[:SHOWN_MAX]!r}."
        raise Problem(403, "host-not-listed", detail)
    if request.method != hdrs.METH_POST:
        return
    # Browsers say whose page it is, where they trust the connection, and name its origin in each POST; others do not.
    site, origin = headers.get(_FETCH_SITE), headers.get(hdrs.ORIGIN)
    if (site is not None or origin is not None) and not _is_own(site, origin, host):
        whose = f"of the origin {origin[:SHOWN_MAX]!r}" if origin is not None else "of another origin"
        raise Problem(403, "foreign-page", f"A web page {whose} may not post to a gateway that asks for no API keys.")


def is_of_a_page(headers: CIMultiDictProxy[str]) -> bool:
    """Whether a browser says that a page sent this, its own or a stranger's."""
    return _FETCH_SITE in headers or hdrs.ORIGIN in headers


def _is_own(site: str | None, origin: str | None, host: str | None) -> bool:
    """Whether a page is of this origin; where the browser says so itself, a proxy may have given it another Host."""
    if site is not None:
        return site in _OWN
    return origin is not None and origin.partition("://")[2].lower() == (host or "").lower()


def refuse_other_types(request: web.Request) -> None:
    """Raise Problem 415 where a body is not sent as JSON, or something else is announced."""
    found = request.headers.get(hdrs.CONTENT_TYPE)
    if found is None:
        if not request.body_exists:
            return
        raise Problem(415, "not-json-type", f"The body has no Content-Type; expected {JSON}.")
    if found != JSON and request.content_type != JSON:
        raise Problem(415, "not-json-type", f"The Content-Type is {found[:SHOWN_MAX]!r}; expected {JSON}.")
