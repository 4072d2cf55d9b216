"""Executes the conformance scenario with `session_sidecar`: conformance.py TARGET, or with its fake: conformance.py fake. See
tests/conformance/README.md.

The scenario speaks of requests and answers of the wire. So each request is made into a call of the client, and what the client
says is made into the message of the wire that it must have come from, field by field: what the client loses or bends is a
difference in the transcript. Admin verbs, and requests that the client cannot be made to send, go out as they are: of the fake they
are asked behind its client.
"""

import sys
from datetime import datetime, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[2] / "tests/conformance"), str(HERE.parent / "src")]

import grpc
import run
from support.api import admin_v1, errors, v1

from session_sidecar import (
    Activity,
    Actor,
    Ended,
    EndReason,
    EventKind,
    Hints,
    HoldKind,
    InvalidRequestError,
    NotPermittedError,
    PageVisibility,
    Ref,
    RefusedError,
    SessionEndedError,
    SessionUnknownError,
    Sidecar,
    SidecarError,
    Touch,
    Unknown,
    events,
)
from session_sidecar._proto import session_admin_service_pb2 as admin_pb
from session_sidecar._proto import session_service_pb2 as pb
from session_sidecar.fake import FakeSidecar
from session_sidecar.fake._requests import Failed

DEADLINE = timedelta(seconds=run.PATIENCE)


# ---- From the wire to the client ----


def word(kind, message, field):
    """The client's word for an enum of a request; None if it is not set. ValueError if there is none."""
    value = getattr(message, field)
    names = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    return word_of(kind, names, value)


def word_of(kind, names, value):
    if value == 0:
        return None
    if value not in names:
        raise ValueError("the client has no word for this")
    prefix = names[0].name.removesuffix("UNSPECIFIED")
    return kind(names[value].name.removeprefix(prefix))


def span(message, field):
    return getattr(message, field).ToTimedelta() if message.HasField(field) else None


def touch(request):
    hints = None
    if request.HasField("hints"):
        told = {field.name: value for field, value in request.hints.ListFields()}
        told["page_visibility"] = word(PageVisibility, request.hints, "page_visibility")
        hints = Hints(**told)
    return Touch(request.session_id, word(Activity, request, "activity"), span(request, "idle_for"), hints)


def name(message):
    return Ref(message.session_ref) if message.WhichOneof("name") == "session_ref" else message.session_id


class Through:
    """The verbs of the wire, by way of the client."""

    def __init__(self, sidecar, raw):
        self.sidecar = sidecar
        self.raw = raw

    def __getattr__(self, verb):
        def call(request, timeout):
            sidecar = self.sidecar.with_options(tenant=getattr(request, "tenant", ""))
            try:
                answer = getattr(self, "_" + verb)(sidecar, request)
            except ValueError as error:
                if isinstance(error, SidecarError):
                    raise as_rpc_error(error) from error
                return getattr(self.raw, verb)(request, timeout=timeout)
            except SidecarError as error:
                raise as_rpc_error(error) from error
            return answer

        return call

    def _Create(self, sidecar, request):
        given = {field.name: value for field, value in request.ListFields() if field.name != "tenant"}
        for field in ("idle_timeout", "absolute_timeout", "authenticated_ago", "idle_for"):
            given[field] = span(request, field)
        given["labels"] = dict(request.labels)
        return encoded(v1.CreateResponse(), sidecar.create(**given))

    def _Touch(self, sidecar, request):
        given = touch(request)
        answer = sidecar.touch(given.session_id, activity=given.activity, idle_for=given.idle_for, hints=given.hints)
        return encoded(v1.TouchResponse(), lived(answer))

    def _BatchTouch(self, sidecar, request):
        outcomes = sidecar.touch_many([touch(each) for each in request.touches])
        response = v1.BatchTouchResponse()
        for each in outcomes:
            outcome = response.outcomes.add()
            if hasattr(each, "counted"):
                encoded(outcome.touch, each)
            else:
                item_error(outcome.error, each)
        return response

    def _Check(self, sidecar, request):
        response = v1.CheckResponse()
        if request.sessions:
            for each in sidecar.check_many([name(each) for each in request.sessions]):
                outcome = response.outcomes.add()
                if getattr(each, "status", None):
                    encoded(outcome.status, each.status)
                else:
                    item_error(outcome.error, each)
        elif request.WhichOneof("name"):
            answer = sidecar.check(name(request))
            if isinstance(answer, Unknown):
                encoded(response.session.status, answer.status)
            else:
                encoded(response.session, answer.session)
        else:
            raise ValueError("a check names a session")
        return response

    def _Extend(self, sidecar, request):
        answer = sidecar.extend(request.session_id, wanted_duration=span(request, "wanted_duration"), request_id=request.request_id or None)
        return encoded(v1.ExtendResponse(), answer)

    def _Hold(self, sidecar, request):
        kind, ttl = word(HoldKind, request, "kind"), span(request, "ttl")
        if kind is None or ttl is None:
            raise ValueError("a hold has a kind and a TTL")
        answer = sidecar.hold(request.session_id, request.hold_id, ttl=ttl, kind=kind, purpose=request.purpose)
        return encoded(v1.HoldResponse(), answer)

    def _Release(self, sidecar, request):
        return encoded(v1.ReleaseResponse(), sidecar.release(request.session_id, request.hold_id))

    def _Rotate(self, sidecar, request):
        answer = sidecar.rotate(
            request.session_id,
            new_session_id=request.new_session_id or None,
            subject=request.subject if request.HasField("subject") else None,
            authenticated_ago=span(request, "authenticated_ago"),
            authentication_level=request.authentication_level,
            request_id=request.request_id or None,
        )
        return encoded(v1.RotateResponse(), answer)

    def _End(self, sidecar, request):
        answer = sidecar.end(
            request.session_id,
            reason=word(EndReason, request, "reason"),
            actor=word(Actor, request, "actor"),
            actor_id=request.actor_id,
            note=request.note,
            request_id=request.request_id or None,
        )
        return encoded(v1.EndResponse(), answer)


# ---- From the client to the wire ----


def encoded(message, answer):
    """Fills a message from what the client said, by the names of its fields."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(answer, field.name, None)
        if value is None or field.name == "last_activity_accuracy":  # Unset and 0 mean the same.
            continue
        if isinstance(value, timedelta):
            getattr(message, field.name).FromTimedelta(value)
        elif isinstance(value, datetime):
            assert value.tzinfo is not None
            getattr(message, field.name).FromDatetime(value)
        elif field.enum_type:
            prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
            setattr(message, field.name, field.enum_type.values_by_name[prefix + value].number)
        elif isinstance(value, dict):
            getattr(message, field.name).update(value)
        elif isinstance(value, tuple):
            target = getattr(message, field.name)
            for item in value:
                target.append(item) if isinstance(item, str) else encoded(target.add(), item)
        elif field.message_type:
            encoded(getattr(message, field.name), value)
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, value)
    return message


def lived(answer):
    """The answer, if it is of a live session; else the error that the wire had."""
    if not answer.allowed:
        raise as_rpc_error(answer)
    return answer


class WireError(grpc.RpcError):
    """What grpcio would have raised."""

    def __init__(self, code, *details):
        self._code = grpc.StatusCode[code]
        self._status = errors.Status(code=self._code.value[0])
        for detail in details:
            self._status.details.add().Pack(detail)

    def code(self):
        return self._code

    def trailing_metadata(self):
        return (("grpc-status-details-bin", self._status.SerializeToString()),)


def info(word, /, **metadata):
    told = {key: value for key, value in metadata.items() if value}
    return errors.ErrorInfo(domain="sessionsidecar.v1", reason=word, metadata=told)


def as_rpc_error(problem):
    match problem:
        case SessionEndedError() | SessionUnknownError():
            return as_rpc_error(problem.answer)
        case Ended(session_ref=ref, end=end):
            told = {"reason": end.reason, "actor": end.actor, "actor_id": end.actor_id, "note": end.note, "successor_ref": end.successor_ref}
            return WireError("FAILED_PRECONDITION", info("SESSION_ENDED", session_ref=ref, end_time=end.end_time.isoformat(), **told))
        case Unknown(session_ref=ref, may_have_ended=may):
            return WireError("NOT_FOUND", info("SESSION_UNKNOWN", session_ref=ref, may_have_ended="true" if may else ""))
        case RefusedError():
            return WireError(problem.code, info(problem.reason, **problem.metadata))
        case NotPermittedError():
            return WireError(problem.code, info(problem.reason))
        case InvalidRequestError():
            violations = [errors.BadRequest.FieldViolation(field=field) for field in problem.fields]
            return WireError("INVALID_ARGUMENT", errors.BadRequest(field_violations=violations))
    raise problem


def item_error(message, problem):
    match problem:
        case Ended():
            encoded(message.end, problem.end)
            message.code, message.reason, message.session_ref = 9, "SESSION_ENDED", problem.session_ref
        case Unknown():
            message.code, message.reason, message.session_ref = 5, "SESSION_UNKNOWN", problem.session_ref
        case InvalidRequestError():
            message.code, message.message = 3, str(problem)
        case _:
            raise problem


class Watcher:
    """One watch, and the last token that came."""

    def __init__(self, sidecar, request):
        self.sidecar = sidecar.with_options(tenant=request.scope.tenant)
        self.request = request
        self.open("")

    def open(self, token):
        scope, heartbeat = self.request.scope, span(self.request, "heartbeat_interval")
        names = self.request.DESCRIPTOR.fields_by_name["kinds"].enum_type.values_by_number
        try:
            self.watch = self.sidecar.watch(
                [name(each) for each in scope.sessions.names],
                subject=scope.subject if scope.WhichOneof("scope") == "subject" else None,
                whole_tenant=scope.whole_tenant,
                everything=scope.everything,
                kinds=[word_of(EventKind, names, kind) for kind in self.request.kinds],
                initial_state=self.request.include_initial_state,
                resume_token=token or self.request.resume_token,
                **({"heartbeat_interval": heartbeat} if heartbeat else {}),
            )
        except SidecarError as error:
            self.watch = iter([error])

    def cut(self):
        self.watch.close()

    def resume(self):
        self.open(self.watch.resume_token)

    def read(self, names):
        """The next message, or how the stream ended."""
        try:
            event = next(self.watch, None)
        except SidecarError as error:
            event = error
        match event:
            case SidecarError():
                return run.failed(names, as_rpc_error(event))
            case None:
                return ["OK"]
            case events.BeginAnew(reason="RESUME_TOKEN_INVALID"):
                # A token that is of no use is no reason to give up: the watch goes on, with the state anew.
                return run.failed(names, as_rpc_error(InvalidRequestError("", ("resume_token",))))
            case events.Draining():
                self.watch.close()
        kind = {events.SnapshotEnd: "snapshot_end"}.get(type(event), type(event).__name__.lower())
        message = v1.WatchExpiryResponse()
        message.emit_time.FromDatetime(event.emit_time)
        encoded(getattr(message, kind), event).SetInParent()
        return run.flatten(names, message)


class Runner(run.Runner):
    """Executes steps by way of the client."""

    def __init__(self, target):
        super().__init__(target)
        self.sidecar = Sidecar(target, deadline=DEADLINE)
        self.client.sessions = Through(self.sidecar, self.client.sessions)

    def watch(self, step):
        lines = f"Watch ({step['watch']}) {run.json.dumps(step['request'])}"
        self.watchers[step["watch"]] = Watcher(self.sidecar, self.request(v1.WatchExpiryRequest, step["request"]))
        return [lines]


# ---- The fake in the sidecar's place ----

# The driver says why, and compares all else: see NOT_ASKED_OF_THE_FAKES in tests/conformance/conformance.py.
NOT_ASKED = {"ExplainSession", "ListPolicies", "GetStats"}


class Behind:
    """The verbs of the wire, asked of the fake behind its client."""

    def __init__(self, fake):
        self.server = fake._server

    def __getattr__(self, verb):
        kept = v1 if hasattr(v1, f"{verb}Response") else admin_v1
        ours = pb if kept is v1 else admin_pb

        def call(request, timeout):
            try:
                answer = self.server.ask(verb, getattr(ours, f"{verb}Request").FromString(request.SerializeToString()))
            except Failed as failed:
                told = failed.failure
                violations = [errors.BadRequest.FieldViolation(field=field) for field in told.fields]
                details = [errors.BadRequest(field_violations=violations)] if violations else []
                raise WireError(told.code, *details, *([info(told.reason, **told.metadata)] if told.reason else [])) from failed
            return getattr(kept, f"{verb}Response").FromString(answer.SerializeToString())

        return call


class FakeRunner(Runner):
    """Executes steps with the fake: nothing listens anywhere."""

    # Lists are in the order of refs, which is that of the key. The scenario's key orders these sessions so.
    LISTED = ("first-id-of-vera-0123456789", "third-id-of-vera-0123456789", "second-id-of-vera-0123456789")

    def __init__(self, target):
        super().__init__(target)
        while True:
            self.sidecar = FakeSidecar(policy_file=Path(run.__file__).with_name("policy.toml"))
            refs = [self.sidecar.check(each).session_ref for each in self.LISTED]
            if refs == sorted(refs):
                break
        self.client.admin = Behind(self.sidecar)
        self.client.sessions = Through(self.sidecar, self.client.admin)

    def admin(self, step):
        if step["admin"] in NOT_ASKED:
            return [f"{step['admin']} {run.json.dumps(step['request'])}"]
        return super().admin(step)

    def advance(self, step):
        self.sidecar.advance(timedelta(seconds=float(step["advance"].removesuffix("s"))))
        return [f"Advance {step['advance']}"]

    def stop(self, step):
        self.sidecar.drain()
        return super().stop(step)


if __name__ == "__main__":
    run.main(FakeRunner if sys.argv[1] == "fake" else Runner)
