"""What a watch makes of what comes, without clock or network."""

import random
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from session_sidecar import InvalidRequestError, NotPermittedError, events
from session_sidecar._errors import Failure
from session_sidecar._proto import session_service_pb2 as pb
from session_sidecar._watch import LONGEST_PAUSE, SILENT, Course

LOST = Failure("UNAVAILABLE", "gone")
EXPIRED = Failure("OUT_OF_RANGE", "trimmed", "RESUME_TOKEN_EXPIRED")


class Longest(random.Random):
    """Draws the longest pause."""

    def uniform(self, least, most):
        assert least == 0, "full jitter"
        return most


def course(rng=None, **given):
    return Course(pb.WatchExpiryRequest(heartbeat_interval=Duration(seconds=15), **given), rng or Longest())


def message(token, **what):
    return pb.WatchExpiryResponse(resume_token=token, emit_time=Timestamp(seconds=1), **what)


def begin(watch):
    watch.heard(message("t1", snapshot=pb.Snapshot()))
    return watch.heard(message("t2", snapshot_end=pb.SnapshotEnd(snapshot_count=1)))


def test_it_resumes_after_the_last_message_received_heartbeats_too():
    watch = course(include_initial_state=True)
    assert watch.silence == 45
    begin(watch)
    assert watch.heard(message("t3", heartbeat=pb.Heartbeat())) == []
    assert watch.broke(LOST, 1) == (None, 0.1)
    assert (watch.request().resume_token, watch.request().include_initial_state) == ("t3", False)


def test_a_token_from_within_the_initial_state_is_not_used():
    watch = course(include_initial_state=True)
    watch.heard(message("t1", snapshot=pb.Snapshot()))
    assert watch.resume_token == ""
    anew, _ = watch.broke(LOST, 1)
    assert anew == events.BeginAnew("INITIAL_STATE_INCOMPLETE")
    assert (watch.request().resume_token, watch.request().include_initial_state) == ("", True)
    begin(watch)
    assert watch.resume_token == "t2"


def test_a_stream_whose_token_was_taken_out_of_use_is_opened_once_more():
    outdated = Failure("UNAUTHENTICATED", "none of those", "CALLER_NOT_AUTHENTICATED")
    watch = course(include_initial_state=True)
    begin(watch)
    assert watch.broke(outdated, 1) == (None, 0.1)
    with pytest.raises(NotPermittedError):
        watch.broke(outdated, 0)


@pytest.mark.parametrize("failure", [EXPIRED, Failure("INVALID_ARGUMENT", "another's", fields=("resume_token",))])
def test_a_token_of_no_use_begins_anew_with_the_state(failure):
    watch = course(resume_token="of yesterday")
    anew, _ = watch.broke(failure, 0)
    assert isinstance(anew, events.BeginAnew)
    assert (watch.request().resume_token, watch.request().include_initial_state) == ("", True)
    assert watch.broke(LOST, 0)[0] is None, "it is told once"


def kinds(told):
    return [type(event) for event in told]


GOES_ON = pb.Snapshot(predecessor_ref="before")


@pytest.mark.parametrize("first", [[], [{"snapshot": GOES_ON}], [{"snapshot": pb.Snapshot()}], [{"snapshot": GOES_ON}, {"snapshot": pb.Snapshot()}]])
def test_an_initial_state_that_is_told_again_is_announced_first(first):
    watch = course(include_initial_state=True)
    begin(watch)
    watch.broke(LOST, 1)
    watch.request()
    messages = [*first, {"snapshot_end": pb.SnapshotEnd(snapshot_count=len(first))}]
    told = [event for number, what in enumerate(messages) for event in watch.heard(message(f"u{number}", **what))]
    assert told[0] == events.BeginAnew("INITIAL_STATE_AGAIN")
    assert kinds(told[1:]) == [events.Snapshot] * len(first) + [events.SnapshotEnd]
    assert watch.resume_token == f"u{len(first)}"


def test_an_initial_state_that_is_told_again_and_cut_off_is_not_resumed():
    watch = course(resume_token="t")
    watch.request()
    assert kinds(watch.heard(message("u1", snapshot=pb.Snapshot()))) == [events.BeginAnew, events.Snapshot]
    assert watch.broke(LOST, 1)[0] == events.BeginAnew("INITIAL_STATE_INCOMPLETE")
    assert watch.request().include_initial_state


def test_where_a_session_went_on_is_no_initial_state():
    watch = course(resume_token="t")
    watch.request()
    assert watch.heard(message("u1", snapshot=GOES_ON)) == []
    assert watch.resume_token == "t", "what was not passed on comes again"
    assert kinds(watch.heard(message("u2", heartbeat=pb.Heartbeat()))) == [events.Snapshot]
    assert kinds(watch.heard(message("u3", snapshot=GOES_ON))) == [events.Snapshot]
    assert watch.resume_token == "u3"


def test_pauses_grow_to_ten_seconds_and_are_short_again_after_a_stream_that_stood():
    watch = course()
    assert [watch.broke(LOST, 0)[1] for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
    begin(watch)
    assert watch.broke(SILENT, 1)[1] == 10, "a sidecar that falls over at once is not helped by haste"
    assert watch.broke(None, LONGEST_PAUSE)[1] == 0.1
    drawn = {course(random.Random(seed)).broke(LOST, 0)[1] for seed in range(50)}
    assert len(drawn) == 50 and all(0 <= pause <= 0.1 for pause in drawn)


def test_the_sidecar_may_ask_for_more_time():
    asked = Failure("UNAVAILABLE", "away", "STORE_UNAVAILABLE", retry_after=timedelta(seconds=2))
    assert course().broke(asked, 0)[1] == 2.1


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"])
def test_it_does_not_give_up(code):
    watch = course()
    for _ in range(2000):
        watch.broke(Failure(code, ""), 0)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure("INVALID_ARGUMENT", "", fields=("scope",)), InvalidRequestError),
        (Failure("PERMISSION_DENIED", ""), NotPermittedError),
        (Failure("UNIMPLEMENTED", ""), NotPermittedError),
    ],
)
def test_mistakes_are_raised(failure, error):
    with pytest.raises(error):
        course().broke(failure, 0)


def test_what_a_newer_sidecar_says_is_passed_over():
    assert course().heard(message("t1")) == []
    (ended,) = course().heard(message("t1", ended=pb.Ended(end=pb.SessionEnd(reason=99, actor=99))))
    assert (ended.end.reason, ended.end.actor) == ("OTHER", "OTHER")
