import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from . import session_service_pb2 as _session_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionFilter(_message.Message):
    __slots__ = ("tenant", "subject", "states", "labels", "policy")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    subject: str
    states: _containers.RepeatedScalarFieldContainer[_session_service_pb2.SessionState]
    labels: _containers.ScalarMap[str, str]
    policy: str
    def __init__(self, tenant: _Optional[str] = ..., subject: _Optional[str] = ..., states: _Optional[_Iterable[_Union[_session_service_pb2.SessionState, str]]] = ..., labels: _Optional[_Mapping[str, str]] = ..., policy: _Optional[str] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token", "actor_id")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    filter: SessionFilter
    page_size: int
    page_token: str
    actor_id: str
    def __init__(self, filter: _Optional[_Union[SessionFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., actor_id: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[_session_service_pb2.Session]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[_session_service_pb2.Session, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class EndSessionsRequest(_message.Message):
    __slots__ = ("filter", "dry_run", "reason", "actor", "actor_id", "note", "whole_tenant")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCEPT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    WHOLE_TENANT_FIELD_NUMBER: _ClassVar[int]
    filter: SessionFilter
    dry_run: bool
    reason: _session_service_pb2.EndReason
    actor: _session_service_pb2.Actor
    actor_id: str
    note: str
    whole_tenant: bool
    def __init__(self, filter: _Optional[_Union[SessionFilter, _Mapping]] = ..., dry_run: _Optional[bool] = ..., reason: _Optional[_Union[_session_service_pb2.EndReason, str]] = ..., actor: _Optional[_Union[_session_service_pb2.Actor, str]] = ..., actor_id: _Optional[str] = ..., note: _Optional[str] = ..., whole_tenant: _Optional[bool] = ..., **kwargs) -> None: ...

class EndSessionsResponse(_message.Message):
    __slots__ = ("matched_count", "ended_count", "session_refs")
    MATCHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ENDED_COUNT_FIELD_NUMBER: _ClassVar[int]
    SESSION_REFS_FIELD_NUMBER: _ClassVar[int]
    matched_count: int
    ended_count: int
    session_refs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, matched_count: _Optional[int] = ..., ended_count: _Optional[int] = ..., session_refs: _Optional[_Iterable[str]] = ...) -> None: ...

class ExplainSessionRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "session_ref", "subject_period", "actor_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_REF_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_PERIOD_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    session_ref: str
    subject_period: SubjectPeriod
    actor_id: str
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., session_ref: _Optional[str] = ..., subject_period: _Optional[_Union[SubjectPeriod, _Mapping]] = ..., actor_id: _Optional[str] = ...) -> None: ...

class SubjectPeriod(_message.Message):
    __slots__ = ("subject", "start_time", "end_time")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    subject: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, subject: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ExplainSessionResponse(_message.Message):
    __slots__ = ("explanations", "truncated")
    EXPLANATIONS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    explanations: _containers.RepeatedCompositeFieldContainer[SessionExplanation]
    truncated: bool
    def __init__(self, explanations: _Optional[_Iterable[_Union[SessionExplanation, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...

class SessionExplanation(_message.Message):
    __slots__ = ("session", "summary", "history", "history_dropped_count", "tallies")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    HISTORY_DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    TALLIES_FIELD_NUMBER: _ClassVar[int]
    session: _session_service_pb2.Session
    summary: str
    history: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    history_dropped_count: int
    tallies: _containers.RepeatedCompositeFieldContainer[RuleTally]
    def __init__(self, session: _Optional[_Union[_session_service_pb2.Session, _Mapping]] = ..., summary: _Optional[str] = ..., history: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ..., history_dropped_count: _Optional[int] = ..., tallies: _Optional[_Iterable[_Union[RuleTally, _Mapping]]] = ...) -> None: ...

class RuleTally(_message.Message):
    __slots__ = ("rule", "counted", "touch_count", "first_time", "last_time")
    RULE_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    TOUCH_COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_TIME_FIELD_NUMBER: _ClassVar[int]
    rule: str
    counted: bool
    touch_count: int
    first_time: _timestamp_pb2.Timestamp
    last_time: _timestamp_pb2.Timestamp
    def __init__(self, rule: _Optional[str] = ..., counted: _Optional[bool] = ..., touch_count: _Optional[int] = ..., first_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("time", "warning", "cleared", "extended", "hold_started", "hold_ended", "rotated", "policy_changed", "unenforced_end", "ended")
    TIME_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    CLEARED_FIELD_NUMBER: _ClassVar[int]
    EXTENDED_FIELD_NUMBER: _ClassVar[int]
    HOLD_STARTED_FIELD_NUMBER: _ClassVar[int]
    HOLD_ENDED_FIELD_NUMBER: _ClassVar[int]
    ROTATED_FIELD_NUMBER: _ClassVar[int]
    POLICY_CHANGED_FIELD_NUMBER: _ClassVar[int]
    UNENFORCED_END_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    warning: HistoryWarning
    cleared: HistoryCleared
    extended: HistoryExtended
    hold_started: HistoryHoldStarted
    hold_ended: HistoryHoldEnded
    rotated: HistoryRotated
    policy_changed: HistoryPolicyChanged
    unenforced_end: HistoryUnenforcedEnd
    ended: HistoryEnded
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., warning: _Optional[_Union[HistoryWarning, _Mapping]] = ..., cleared: _Optional[_Union[HistoryCleared, _Mapping]] = ..., extended: _Optional[_Union[HistoryExtended, _Mapping]] = ..., hold_started: _Optional[_Union[HistoryHoldStarted, _Mapping]] = ..., hold_ended: _Optional[_Union[HistoryHoldEnded, _Mapping]] = ..., rotated: _Optional[_Union[HistoryRotated, _Mapping]] = ..., policy_changed: _Optional[_Union[HistoryPolicyChanged, _Mapping]] = ..., unenforced_end: _Optional[_Union[HistoryUnenforcedEnd, _Mapping]] = ..., ended: _Optional[_Union[HistoryEnded, _Mapping]] = ...) -> None: ...

class HistoryWarning(_message.Message):
    __slots__ = ("limit", "point", "expire_time", "watcher_count")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    WATCHER_COUNT_FIELD_NUMBER: _ClassVar[int]
    limit: _session_service_pb2.Limit
    point: _duration_pb2.Duration
    expire_time: _timestamp_pb2.Timestamp
    watcher_count: int
    def __init__(self, limit: _Optional[_Union[_session_service_pb2.Limit, str]] = ..., point: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., watcher_count: _Optional[int] = ...) -> None: ...

class HistoryCleared(_message.Message):
    __slots__ = ("limit", "cause", "expire_time", "watcher_count")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    WATCHER_COUNT_FIELD_NUMBER: _ClassVar[int]
    limit: _session_service_pb2.Limit
    cause: _session_service_pb2.ClearedCause
    expire_time: _timestamp_pb2.Timestamp
    watcher_count: int
    def __init__(self, limit: _Optional[_Union[_session_service_pb2.Limit, str]] = ..., cause: _Optional[_Union[_session_service_pb2.ClearedCause, str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., watcher_count: _Optional[int] = ...) -> None: ...

class HistoryExtended(_message.Message):
    __slots__ = ("granted_duration", "clamped_by")
    GRANTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    CLAMPED_BY_FIELD_NUMBER: _ClassVar[int]
    granted_duration: _duration_pb2.Duration
    clamped_by: _session_service_pb2.Limit
    def __init__(self, granted_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., clamped_by: _Optional[_Union[_session_service_pb2.Limit, str]] = ...) -> None: ...

class HistoryHoldStarted(_message.Message):
    __slots__ = ("hold_id", "kind", "purpose", "granted_ttl")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    GRANTED_TTL_FIELD_NUMBER: _ClassVar[int]
    hold_id: str
    kind: _session_service_pb2.HoldKind
    purpose: str
    granted_ttl: _duration_pb2.Duration
    def __init__(self, hold_id: _Optional[str] = ..., kind: _Optional[_Union[_session_service_pb2.HoldKind, str]] = ..., purpose: _Optional[str] = ..., granted_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class HistoryHoldEnded(_message.Message):
    __slots__ = ("hold_id", "kind", "released", "renewal_count")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    RENEWAL_COUNT_FIELD_NUMBER: _ClassVar[int]
    hold_id: str
    kind: _session_service_pb2.HoldKind
    released: bool
    renewal_count: int
    def __init__(self, hold_id: _Optional[str] = ..., kind: _Optional[_Union[_session_service_pb2.HoldKind, str]] = ..., released: _Optional[bool] = ..., renewal_count: _Optional[int] = ...) -> None: ...

class HistoryRotated(_message.Message):
    __slots__ = ("other_ref", "is_successor", "reauthenticated")
    OTHER_REF_FIELD_NUMBER: _ClassVar[int]
    IS_SUCCESSOR_FIELD_NUMBER: _ClassVar[int]
    REAUTHENTICATED_FIELD_NUMBER: _ClassVar[int]
    other_ref: str
    is_successor: bool
    reauthenticated: bool
    def __init__(self, other_ref: _Optional[str] = ..., is_successor: _Optional[bool] = ..., reauthenticated: _Optional[bool] = ...) -> None: ...

class HistoryPolicyChanged(_message.Message):
    __slots__ = ("policy_revision",)
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    policy_revision: int
    def __init__(self, policy_revision: _Optional[int] = ...) -> None: ...

class HistoryUnenforcedEnd(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: _session_service_pb2.EndReason
    def __init__(self, reason: _Optional[_Union[_session_service_pb2.EndReason, str]] = ...) -> None: ...

class HistoryEnded(_message.Message):
    __slots__ = ("end", "watcher_count")
    END_FIELD_NUMBER: _ClassVar[int]
    WATCHER_COUNT_FIELD_NUMBER: _ClassVar[int]
    end: _session_service_pb2.SessionEnd
    watcher_count: int
    def __init__(self, end: _Optional[_Union[_session_service_pb2.SessionEnd, _Mapping]] = ..., watcher_count: _Optional[int] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ("actor_id",)
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    def __init__(self, actor_id: _Optional[str] = ...) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies", "policy_file_problem")
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FILE_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[PolicyInfo]
    policy_file_problem: str
    def __init__(self, policies: _Optional[_Iterable[_Union[PolicyInfo, _Mapping]]] = ..., policy_file_problem: _Optional[str] = ...) -> None: ...

class PolicyInfo(_message.Message):
    __slots__ = ("name", "revision", "active", "enforced", "idle_timeout", "absolute_timeout", "toml", "worst_case", "worst_case_duration", "findings", "elsewhere")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    ENFORCED_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    ABSOLUTE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TOML_FIELD_NUMBER: _ClassVar[int]
    WORST_CASE_FIELD_NUMBER: _ClassVar[int]
    WORST_CASE_DURATION_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    ELSEWHERE_FIELD_NUMBER: _ClassVar[int]
    name: str
    revision: int
    active: bool
    enforced: bool
    idle_timeout: _duration_pb2.Duration
    absolute_timeout: _duration_pb2.Duration
    toml: str
    worst_case: _containers.RepeatedCompositeFieldContainer[WorstCaseTerm]
    worst_case_duration: _duration_pb2.Duration
    findings: _containers.RepeatedCompositeFieldContainer[LintFinding]
    elsewhere: _containers.RepeatedCompositeFieldContainer[PolicyElsewhere]
    def __init__(self, name: _Optional[str] = ..., revision: _Optional[int] = ..., active: _Optional[bool] = ..., enforced: _Optional[bool] = ..., idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., absolute_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., toml: _Optional[str] = ..., worst_case: _Optional[_Iterable[_Union[WorstCaseTerm, _Mapping]]] = ..., worst_case_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., findings: _Optional[_Iterable[_Union[LintFinding, _Mapping]]] = ..., elsewhere: _Optional[_Iterable[_Union[PolicyElsewhere, _Mapping]]] = ...) -> None: ...

class PolicyElsewhere(_message.Message):
    __slots__ = ("missing", "revision", "sidecar_count")
    MISSING_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SIDECAR_COUNT_FIELD_NUMBER: _ClassVar[int]
    missing: bool
    revision: int
    sidecar_count: int
    def __init__(self, missing: _Optional[bool] = ..., revision: _Optional[int] = ..., sidecar_count: _Optional[int] = ...) -> None: ...

class WorstCaseTerm(_message.Message):
    __slots__ = ("name", "duration", "explanation")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    duration: _duration_pb2.Duration
    explanation: str
    def __init__(self, name: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., explanation: _Optional[str] = ...) -> None: ...

class LintFinding(_message.Message):
    __slots__ = ("source", "key", "problem")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    source: str
    key: str
    problem: str
    def __init__(self, source: _Optional[str] = ..., key: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ("tenant", "actor_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    actor_id: str
    def __init__(self, tenant: _Optional[str] = ..., actor_id: _Optional[str] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("states", "reasons", "ghost_session_count", "working_session_count", "unenforced_end_count")
    STATES_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    GHOST_SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    WORKING_SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNENFORCED_END_COUNT_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[StateCount]
    reasons: _containers.RepeatedCompositeFieldContainer[ReasonCount]
    ghost_session_count: int
    working_session_count: int
    unenforced_end_count: int
    def __init__(self, states: _Optional[_Iterable[_Union[StateCount, _Mapping]]] = ..., reasons: _Optional[_Iterable[_Union[ReasonCount, _Mapping]]] = ..., ghost_session_count: _Optional[int] = ..., working_session_count: _Optional[int] = ..., unenforced_end_count: _Optional[int] = ...) -> None: ...

class StateCount(_message.Message):
    __slots__ = ("state", "session_count")
    STATE_FIELD_NUMBER: _ClassVar[int]
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    state: _session_service_pb2.SessionState
    session_count: int
    def __init__(self, state: _Optional[_Union[_session_service_pb2.SessionState, str]] = ..., session_count: _Optional[int] = ...) -> None: ...

class ReasonCount(_message.Message):
    __slots__ = ("reason", "session_count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: _session_service_pb2.EndReason
    session_count: int
    def __init__(self, reason: _Optional[_Union[_session_service_pb2.EndReason, str]] = ..., session_count: _Optional[int] = ...) -> None: ...
