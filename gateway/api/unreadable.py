"""Answers what is not HTTP, or more of it than is read, with a problem document as everything else."""

import logging

from aiohttp import web

from gateway.api.common import problem_answer
from gateway.problems import Problem
from serving.logs import REQUEST_ID_HEADER, new_request_id
from serving.straight import StraightHandler

log = logging.getLogger(__name__)


class RequestHandler(StraightHandler):
    """The handler of one connection, but for its answer to requests that cannot be read."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer after which aiohttp ends the connection."""
        if status >= 500 or request.writer.output_size:
            return super().handle_error(request, status, exc, message)
        reason = (message or "").partition("\n")[0].strip().rstrip(".:") or "it is not HTTP"
        log.debug("a request from %s cannot be read: %s", request.remote, reason)
        problem = Problem(status, "not-http", f"The request cannot be read: {reason}.")
        request_id = new_request_id()
        response = problem_answer(problem, request_id)
        response.headers[REQUEST_ID_HEADER] = request_id
        response.force_close()
        return response
