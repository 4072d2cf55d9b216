"""g15: a session id is in no repr, message, log line or exception."""

import logging

from helpers import NEVER_ISSUED, PATIENT, seconds, shown
from support.process import free_port

from session_sidecar import Sidecar, SidecarError, Touch, events


def test_g15_what_is_shown_and_logged_has_refs_and_no_ids(process, sidecar, caplog):
    caplog.set_level(logging.DEBUG)
    created = sidecar.create(subject="ada")
    session_id = created.session_id
    rotated = sidecar.rotate(session_id)
    ids = [session_id, rotated.session_id, NEVER_ISSUED]
    told = [created, rotated, sidecar, Touch(session_id)]
    with sidecar.watch([rotated.session_id]) as watch:
        snapshot = next(watch)
        assert isinstance(snapshot, events.Snapshot) and snapshot.session.session_id == rotated.session_id
        told += [snapshot, next(watch), watch]
    with sidecar.holding(rotated.session_id) as hold:
        told.append(hold)
    away = Sidecar(f"127.0.0.1:{free_port()}")
    garbled = [each + "\udcff" for each in ids]
    calls = [
        lambda it: sidecar.touch(it),
        lambda it: sidecar.check(it),
        lambda it: sidecar.touch_many([Touch(it)]),
        lambda it: sidecar.check_many([it]),
        lambda it: sidecar.extend(it, wanted_duration=seconds(-1)),
        lambda it: sidecar.hold(it, "work", ttl=seconds(-1)),
        lambda it: sidecar.create(session_id=it),
        lambda it: sidecar.with_options(tenant="other").touch(it),
        lambda it: away.touch(it),
        lambda it: away.end(it),
        lambda it: sidecar.end(it),
        lambda it: sidecar.release(it, "work"),
        lambda it: sidecar.watch([it]).close(),
    ]
    failures = 0
    for call in calls:
        for it in ids + garbled:
            try:
                told.append(call(it))
            except SidecarError as error:
                failures += 1
                told.append(error)
    assert failures > 50
    everything = "\n".join(shown(thing) for thing in told) + caplog.text
    assert created.session.status.session_ref in everything, "the ref is what is shown"
    for it in ids:
        assert it not in everything
    assert sidecar.with_options(deadline=PATIENT).target == process.tcp
