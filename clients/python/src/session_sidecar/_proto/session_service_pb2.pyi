import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SESSION_STATE_UNSPECIFIED: _ClassVar[SessionState]
    SESSION_STATE_ACTIVE: _ClassVar[SessionState]
    SESSION_STATE_EXPIRING: _ClassVar[SessionState]
    SESSION_STATE_ENDED: _ClassVar[SessionState]
    SESSION_STATE_UNKNOWN: _ClassVar[SessionState]

class Limit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIMIT_UNSPECIFIED: _ClassVar[Limit]
    LIMIT_IDLE: _ClassVar[Limit]
    LIMIT_ABSOLUTE: _ClassVar[Limit]
    LIMIT_PRESENCE: _ClassVar[Limit]

class KnowledgeScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KNOWLEDGE_SCOPE_UNSPECIFIED: _ClassVar[KnowledgeScope]
    KNOWLEDGE_SCOPE_MEMORY: _ClassVar[KnowledgeScope]
    KNOWLEDGE_SCOPE_STORE: _ClassVar[KnowledgeScope]
    KNOWLEDGE_SCOPE_LOCAL: _ClassVar[KnowledgeScope]

class Activity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVITY_UNSPECIFIED: _ClassVar[Activity]
    ACTIVITY_USER: _ClassVar[Activity]
    ACTIVITY_BACKGROUND: _ClassVar[Activity]

class TouchResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOUCH_RESULT_UNSPECIFIED: _ClassVar[TouchResult]
    TOUCH_RESULT_COUNTED: _ClassVar[TouchResult]
    TOUCH_RESULT_IGNORED: _ClassVar[TouchResult]
    TOUCH_RESULT_STALE: _ClassVar[TouchResult]
    TOUCH_RESULT_PENDING: _ClassVar[TouchResult]

class PageVisibility(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAGE_VISIBILITY_UNSPECIFIED: _ClassVar[PageVisibility]
    PAGE_VISIBILITY_VISIBLE: _ClassVar[PageVisibility]
    PAGE_VISIBILITY_HIDDEN: _ClassVar[PageVisibility]

class HoldKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOLD_KIND_UNSPECIFIED: _ClassVar[HoldKind]
    HOLD_KIND_WORK: _ClassVar[HoldKind]
    HOLD_KIND_PRESENCE: _ClassVar[HoldKind]

class HoldClamp(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOLD_CLAMP_UNSPECIFIED: _ClassVar[HoldClamp]
    HOLD_CLAMP_MAX_TTL: _ClassVar[HoldClamp]
    HOLD_CLAMP_BUDGET: _ClassVar[HoldClamp]
    HOLD_CLAMP_ABSOLUTE: _ClassVar[HoldClamp]

class EndReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_REASON_UNSPECIFIED: _ClassVar[EndReason]
    END_REASON_IDLE_TIMEOUT: _ClassVar[EndReason]
    END_REASON_ABSOLUTE_TIMEOUT: _ClassVar[EndReason]
    END_REASON_LOGOUT: _ClassVar[EndReason]
    END_REASON_REVOKED: _ClassVar[EndReason]
    END_REASON_BROWSER_CLOSED: _ClassVar[EndReason]
    END_REASON_SUPERSEDED: _ClassVar[EndReason]
    END_REASON_ROTATED: _ClassVar[EndReason]

class Actor(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTOR_UNSPECIFIED: _ClassVar[Actor]
    ACTOR_USER: _ClassVar[Actor]
    ACTOR_ADMIN: _ClassVar[Actor]
    ACTOR_POLICY: _ClassVar[Actor]
    ACTOR_SYSTEM: _ClassVar[Actor]

class EventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_KIND_UNSPECIFIED: _ClassVar[EventKind]
    EVENT_KIND_WARNING: _ClassVar[EventKind]
    EVENT_KIND_CLEARED: _ClassVar[EventKind]
    EVENT_KIND_ENDED: _ClassVar[EventKind]

class ClearedCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLEARED_CAUSE_UNSPECIFIED: _ClassVar[ClearedCause]
    CLEARED_CAUSE_TOUCHED: _ClassVar[ClearedCause]
    CLEARED_CAUSE_EXTENDED: _ClassVar[ClearedCause]
    CLEARED_CAUSE_HELD: _ClassVar[ClearedCause]
    CLEARED_CAUSE_ROTATED: _ClassVar[ClearedCause]
    CLEARED_CAUSE_RELEASED: _ClassVar[ClearedCause]
    CLEARED_CAUSE_POLICY_CHANGED: _ClassVar[ClearedCause]
    CLEARED_CAUSE_NOT_ENFORCED: _ClassVar[ClearedCause]
SESSION_STATE_UNSPECIFIED: SessionState
SESSION_STATE_ACTIVE: SessionState
SESSION_STATE_EXPIRING: SessionState
SESSION_STATE_ENDED: SessionState
SESSION_STATE_UNKNOWN: SessionState
LIMIT_UNSPECIFIED: Limit
LIMIT_IDLE: Limit
LIMIT_ABSOLUTE: Limit
LIMIT_PRESENCE: Limit
KNOWLEDGE_SCOPE_UNSPECIFIED: KnowledgeScope
KNOWLEDGE_SCOPE_MEMORY: KnowledgeScope
KNOWLEDGE_SCOPE_STORE: KnowledgeScope
KNOWLEDGE_SCOPE_LOCAL: KnowledgeScope
ACTIVITY_UNSPECIFIED: Activity
ACTIVITY_USER: Activity
ACTIVITY_BACKGROUND: Activity
TOUCH_RESULT_UNSPECIFIED: TouchResult
TOUCH_RESULT_COUNTED: TouchResult
TOUCH_RESULT_IGNORED: TouchResult
TOUCH_RESULT_STALE: TouchResult
TOUCH_RESULT_PENDING: TouchResult
PAGE_VISIBILITY_UNSPECIFIED: PageVisibility
PAGE_VISIBILITY_VISIBLE: PageVisibility
PAGE_VISIBILITY_HIDDEN: PageVisibility
HOLD_KIND_UNSPECIFIED: HoldKind
HOLD_KIND_WORK: HoldKind
HOLD_KIND_PRESENCE: HoldKind
HOLD_CLAMP_UNSPECIFIED: HoldClamp
HOLD_CLAMP_MAX_TTL: HoldClamp
HOLD_CLAMP_BUDGET: HoldClamp
HOLD_CLAMP_ABSOLUTE: HoldClamp
END_REASON_UNSPECIFIED: EndReason
END_REASON_IDLE_TIMEOUT: EndReason
END_REASON_ABSOLUTE_TIMEOUT: EndReason
END_REASON_LOGOUT: EndReason
END_REASON_REVOKED: EndReason
END_REASON_BROWSER_CLOSED: EndReason
END_REASON_SUPERSEDED: EndReason
END_REASON_ROTATED: EndReason
ACTOR_UNSPECIFIED: Actor
ACTOR_USER: Actor
ACTOR_ADMIN: Actor
ACTOR_POLICY: Actor
ACTOR_SYSTEM: Actor
EVENT_KIND_UNSPECIFIED: EventKind
EVENT_KIND_WARNING: EventKind
EVENT_KIND_CLEARED: EventKind
EVENT_KIND_ENDED: EventKind
CLEARED_CAUSE_UNSPECIFIED: ClearedCause
CLEARED_CAUSE_TOUCHED: ClearedCause
CLEARED_CAUSE_EXTENDED: ClearedCause
CLEARED_CAUSE_HELD: ClearedCause
CLEARED_CAUSE_ROTATED: ClearedCause
CLEARED_CAUSE_RELEASED: ClearedCause
CLEARED_CAUSE_POLICY_CHANGED: ClearedCause
CLEARED_CAUSE_NOT_ENFORCED: ClearedCause

class SessionStatus(_message.Message):
    __slots__ = ("session_ref", "state", "expire_time", "expires_in", "server_time", "limit", "next_warning_time", "can_extend", "version", "scope", "may_have_ended", "alias", "read_only", "observed_only")
    SESSION_REF_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NEXT_WARNING_TIME_FIELD_NUMBER: _ClassVar[int]
    CAN_EXTEND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    MAY_HAVE_ENDED_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_ONLY_FIELD_NUMBER: _ClassVar[int]
    session_ref: str
    state: SessionState
    expire_time: _timestamp_pb2.Timestamp
    expires_in: _duration_pb2.Duration
    server_time: _timestamp_pb2.Timestamp
    limit: Limit
    next_warning_time: _timestamp_pb2.Timestamp
    can_extend: bool
    version: int
    scope: KnowledgeScope
    may_have_ended: bool
    alias: bool
    read_only: bool
    observed_only: bool
    def __init__(self, session_ref: _Optional[str] = ..., state: _Optional[_Union[SessionState, str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., server_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., limit: _Optional[_Union[Limit, str]] = ..., next_warning_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., can_extend: _Optional[bool] = ..., version: _Optional[int] = ..., scope: _Optional[_Union[KnowledgeScope, str]] = ..., may_have_ended: _Optional[bool] = ..., alias: _Optional[bool] = ..., read_only: _Optional[bool] = ..., observed_only: _Optional[bool] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("status", "tenant", "subject", "policy", "idle_timeout", "absolute_timeout", "create_time", "authentication_time", "last_activity_time", "idle_expire_time", "absolute_expire_time", "extensions", "labels", "end", "policy_revision", "holds", "authentication_level", "presence_expire_time", "predecessor_ref", "unenforced_end", "last_activity_accuracy")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    ABSOLUTE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATION_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_ACTIVITY_TIME_FIELD_NUMBER: _ClassVar[int]
    IDLE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    ABSOLUTE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATION_LEVEL_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    PREDECESSOR_REF_FIELD_NUMBER: _ClassVar[int]
    UNENFORCED_END_FIELD_NUMBER: _ClassVar[int]
    LAST_ACTIVITY_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    status: SessionStatus
    tenant: str
    subject: str
    policy: str
    idle_timeout: _duration_pb2.Duration
    absolute_timeout: _duration_pb2.Duration
    create_time: _timestamp_pb2.Timestamp
    authentication_time: _timestamp_pb2.Timestamp
    last_activity_time: _timestamp_pb2.Timestamp
    idle_expire_time: _timestamp_pb2.Timestamp
    absolute_expire_time: _timestamp_pb2.Timestamp
    extensions: int
    labels: _containers.ScalarMap[str, str]
    end: SessionEnd
    policy_revision: int
    holds: _containers.RepeatedCompositeFieldContainer[SessionHold]
    authentication_level: str
    presence_expire_time: _timestamp_pb2.Timestamp
    predecessor_ref: str
    unenforced_end: SessionEnd
    last_activity_accuracy: _duration_pb2.Duration
    def __init__(self, status: _Optional[_Union[SessionStatus, _Mapping]] = ..., tenant: _Optional[str] = ..., subject: _Optional[str] = ..., policy: _Optional[str] = ..., idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., absolute_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., authentication_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_activity_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., idle_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., absolute_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., extensions: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., end: _Optional[_Union[SessionEnd, _Mapping]] = ..., policy_revision: _Optional[int] = ..., holds: _Optional[_Iterable[_Union[SessionHold, _Mapping]]] = ..., authentication_level: _Optional[str] = ..., presence_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., predecessor_ref: _Optional[str] = ..., unenforced_end: _Optional[_Union[SessionEnd, _Mapping]] = ..., last_activity_accuracy: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SessionHold(_message.Message):
    __slots__ = ("hold_id", "kind", "purpose", "start_time", "expire_time", "expires_in")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    hold_id: str
    kind: HoldKind
    purpose: str
    start_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    expires_in: _duration_pb2.Duration
    def __init__(self, hold_id: _Optional[str] = ..., kind: _Optional[_Union[HoldKind, str]] = ..., purpose: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SessionEnd(_message.Message):
    __slots__ = ("reason", "actor", "actor_id", "end_time", "note", "successor_ref")
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    SUCCESSOR_REF_FIELD_NUMBER: _ClassVar[int]
    reason: EndReason
    actor: Actor
    actor_id: str
    end_time: _timestamp_pb2.Timestamp
    note: str
    successor_ref: str
    def __init__(self, reason: _Optional[_Union[EndReason, str]] = ..., actor: _Optional[_Union[Actor, str]] = ..., actor_id: _Optional[str] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., note: _Optional[str] = ..., successor_ref: _Optional[str] = ...) -> None: ...

class SessionName(_message.Message):
    __slots__ = ("session_id", "session_ref")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_REF_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    session_ref: str
    def __init__(self, session_id: _Optional[str] = ..., session_ref: _Optional[str] = ...) -> None: ...

class CreateRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "subject", "policy", "labels", "idle_timeout", "absolute_timeout", "authenticated_ago", "idle_for", "request_id", "authentication_level")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    ABSOLUTE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATED_AGO_FIELD_NUMBER: _ClassVar[int]
    IDLE_FOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATION_LEVEL_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    subject: str
    policy: str
    labels: _containers.ScalarMap[str, str]
    idle_timeout: _duration_pb2.Duration
    absolute_timeout: _duration_pb2.Duration
    authenticated_ago: _duration_pb2.Duration
    idle_for: _duration_pb2.Duration
    request_id: str
    authentication_level: str
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., subject: _Optional[str] = ..., policy: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., absolute_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., authenticated_ago: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., idle_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request_id: _Optional[str] = ..., authentication_level: _Optional[str] = ...) -> None: ...

class CreateResponse(_message.Message):
    __slots__ = ("session_id", "session", "superseded_refs")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_REFS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    session: Session
    superseded_refs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., superseded_refs: _Optional[_Iterable[str]] = ...) -> None: ...

class TouchHints(_message.Message):
    __slots__ = ("host", "method", "path", "sec_fetch_user", "sec_fetch_mode", "sec_fetch_dest", "sec_purpose", "page_visibility", "input_report")
    HOST_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SEC_FETCH_USER_FIELD_NUMBER: _ClassVar[int]
    SEC_FETCH_MODE_FIELD_NUMBER: _ClassVar[int]
    SEC_FETCH_DEST_FIELD_NUMBER: _ClassVar[int]
    SEC_PURPOSE_FIELD_NUMBER: _ClassVar[int]
    PAGE_VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    INPUT_REPORT_FIELD_NUMBER: _ClassVar[int]
    host: str
    method: str
    path: str
    sec_fetch_user: str
    sec_fetch_mode: str
    sec_fetch_dest: str
    sec_purpose: str
    page_visibility: PageVisibility
    input_report: bool
    def __init__(self, host: _Optional[str] = ..., method: _Optional[str] = ..., path: _Optional[str] = ..., sec_fetch_user: _Optional[str] = ..., sec_fetch_mode: _Optional[str] = ..., sec_fetch_dest: _Optional[str] = ..., sec_purpose: _Optional[str] = ..., page_visibility: _Optional[_Union[PageVisibility, str]] = ..., input_report: _Optional[bool] = ...) -> None: ...

class TouchRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "activity", "idle_for", "hints")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    IDLE_FOR_FIELD_NUMBER: _ClassVar[int]
    HINTS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    activity: Activity
    idle_for: _duration_pb2.Duration
    hints: TouchHints
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., activity: _Optional[_Union[Activity, str]] = ..., idle_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., hints: _Optional[_Union[TouchHints, _Mapping]] = ...) -> None: ...

class TouchResponse(_message.Message):
    __slots__ = ("status", "counted", "result", "rule")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    status: SessionStatus
    counted: bool
    result: TouchResult
    rule: str
    def __init__(self, status: _Optional[_Union[SessionStatus, _Mapping]] = ..., counted: _Optional[bool] = ..., result: _Optional[_Union[TouchResult, str]] = ..., rule: _Optional[str] = ...) -> None: ...

class BatchTouchRequest(_message.Message):
    __slots__ = ("touches",)
    TOUCHES_FIELD_NUMBER: _ClassVar[int]
    touches: _containers.RepeatedCompositeFieldContainer[TouchRequest]
    def __init__(self, touches: _Optional[_Iterable[_Union[TouchRequest, _Mapping]]] = ...) -> None: ...

class BatchTouchResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[TouchOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[TouchOutcome, _Mapping]]] = ...) -> None: ...

class TouchOutcome(_message.Message):
    __slots__ = ("touch", "error")
    TOUCH_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    touch: TouchResponse
    error: ItemError
    def __init__(self, touch: _Optional[_Union[TouchResponse, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("code", "message", "reason", "session_ref", "end")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SESSION_REF_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reason: str
    session_ref: str
    end: SessionEnd
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ..., session_ref: _Optional[str] = ..., end: _Optional[_Union[SessionEnd, _Mapping]] = ...) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "session_ref", "sessions")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_REF_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    session_ref: str
    sessions: _containers.RepeatedCompositeFieldContainer[SessionName]
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., session_ref: _Optional[str] = ..., sessions: _Optional[_Iterable[_Union[SessionName, _Mapping]]] = ...) -> None: ...

class CheckResponse(_message.Message):
    __slots__ = ("session", "outcomes")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    session: Session
    outcomes: _containers.RepeatedCompositeFieldContainer[CheckOutcome]
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., outcomes: _Optional[_Iterable[_Union[CheckOutcome, _Mapping]]] = ...) -> None: ...

class CheckOutcome(_message.Message):
    __slots__ = ("status", "error")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    status: SessionStatus
    error: ItemError
    def __init__(self, status: _Optional[_Union[SessionStatus, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "wanted_duration", "request_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    WANTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    wanted_duration: _duration_pb2.Duration
    request_id: str
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., wanted_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ExtendResponse(_message.Message):
    __slots__ = ("status", "granted_duration", "clamped_by")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    GRANTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    CLAMPED_BY_FIELD_NUMBER: _ClassVar[int]
    status: SessionStatus
    granted_duration: _duration_pb2.Duration
    clamped_by: Limit
    def __init__(self, status: _Optional[_Union[SessionStatus, _Mapping]] = ..., granted_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., clamped_by: _Optional[_Union[Limit, str]] = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "hold_id", "kind", "ttl", "purpose")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    hold_id: str
    kind: HoldKind
    ttl: _duration_pb2.Duration
    purpose: str
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., hold_id: _Optional[str] = ..., kind: _Optional[_Union[HoldKind, str]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., purpose: _Optional[str] = ...) -> None: ...

class HoldResponse(_message.Message):
    __slots__ = ("status", "granted_ttl", "clamped_by", "created")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    GRANTED_TTL_FIELD_NUMBER: _ClassVar[int]
    CLAMPED_BY_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    status: SessionStatus
    granted_ttl: _duration_pb2.Duration
    clamped_by: HoldClamp
    created: bool
    def __init__(self, status: _Optional[_Union[SessionStatus, _Mapping]] = ..., granted_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., clamped_by: _Optional[_Union[HoldClamp, str]] = ..., created: _Optional[bool] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "hold_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    hold_id: str
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., hold_id: _Optional[str] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("status", "released")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    status: SessionStatus
    released: bool
    def __init__(self, status: _Optional[_Union[SessionStatus, _Mapping]] = ..., released: _Optional[bool] = ...) -> None: ...

class RotateRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "new_session_id", "subject", "authenticated_ago", "authentication_level", "request_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATED_AGO_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATION_LEVEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    new_session_id: str
    subject: str
    authenticated_ago: _duration_pb2.Duration
    authentication_level: str
    request_id: str
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., new_session_id: _Optional[str] = ..., subject: _Optional[str] = ..., authenticated_ago: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., authentication_level: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RotateResponse(_message.Message):
    __slots__ = ("session_id", "session", "previous_end", "superseded_refs")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_END_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_REFS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    session: Session
    previous_end: SessionEnd
    superseded_refs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., previous_end: _Optional[_Union[SessionEnd, _Mapping]] = ..., superseded_refs: _Optional[_Iterable[str]] = ...) -> None: ...

class EndRequest(_message.Message):
    __slots__ = ("tenant", "session_id", "reason", "actor", "actor_id", "note", "request_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    session_id: str
    reason: EndReason
    actor: Actor
    actor_id: str
    note: str
    request_id: str
    def __init__(self, tenant: _Optional[str] = ..., session_id: _Optional[str] = ..., reason: _Optional[_Union[EndReason, str]] = ..., actor: _Optional[_Union[Actor, str]] = ..., actor_id: _Optional[str] = ..., note: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class EndResponse(_message.Message):
    __slots__ = ("status", "end", "ended_now")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ENDED_NOW_FIELD_NUMBER: _ClassVar[int]
    status: SessionStatus
    end: SessionEnd
    ended_now: bool
    def __init__(self, status: _Optional[_Union[SessionStatus, _Mapping]] = ..., end: _Optional[_Union[SessionEnd, _Mapping]] = ..., ended_now: _Optional[bool] = ...) -> None: ...

class WatchExpiryRequest(_message.Message):
    __slots__ = ("scope", "kinds", "resume_token", "heartbeat_interval", "include_initial_state")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_INITIAL_STATE_FIELD_NUMBER: _ClassVar[int]
    scope: WatchScope
    kinds: _containers.RepeatedScalarFieldContainer[EventKind]
    resume_token: str
    heartbeat_interval: _duration_pb2.Duration
    include_initial_state: bool
    def __init__(self, scope: _Optional[_Union[WatchScope, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[EventKind, str]]] = ..., resume_token: _Optional[str] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., include_initial_state: _Optional[bool] = ...) -> None: ...

class WatchScope(_message.Message):
    __slots__ = ("tenant", "sessions", "subject", "whole_tenant", "everything")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    WHOLE_TENANT_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    sessions: SessionNames
    subject: str
    whole_tenant: bool
    everything: bool
    def __init__(self, tenant: _Optional[str] = ..., sessions: _Optional[_Union[SessionNames, _Mapping]] = ..., subject: _Optional[str] = ..., whole_tenant: _Optional[bool] = ..., everything: _Optional[bool] = ...) -> None: ...

class SessionNames(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedCompositeFieldContainer[SessionName]
    def __init__(self, names: _Optional[_Iterable[_Union[SessionName, _Mapping]]] = ...) -> None: ...

class WatchExpiryResponse(_message.Message):
    __slots__ = ("resume_token", "emit_time", "snapshot", "snapshot_end", "warning", "cleared", "ended", "heartbeat", "draining")
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_END_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    CLEARED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    resume_token: str
    emit_time: _timestamp_pb2.Timestamp
    snapshot: Snapshot
    snapshot_end: SnapshotEnd
    warning: Warning
    cleared: Cleared
    ended: Ended
    heartbeat: Heartbeat
    draining: Draining
    def __init__(self, resume_token: _Optional[str] = ..., emit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., snapshot_end: _Optional[_Union[SnapshotEnd, _Mapping]] = ..., warning: _Optional[_Union[Warning, _Mapping]] = ..., cleared: _Optional[_Union[Cleared, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., draining: _Optional[_Union[Draining, _Mapping]] = ...) -> None: ...

class EventSession(_message.Message):
    __slots__ = ("session_ref", "session_id", "tenant", "subject", "labels", "version")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_REF_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    session_ref: str
    session_id: str
    tenant: str
    subject: str
    labels: _containers.ScalarMap[str, str]
    version: int
    def __init__(self, session_ref: _Optional[str] = ..., session_id: _Optional[str] = ..., tenant: _Optional[str] = ..., subject: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., version: _Optional[int] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("session", "status", "end", "predecessor_ref")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    PREDECESSOR_REF_FIELD_NUMBER: _ClassVar[int]
    session: EventSession
    status: SessionStatus
    end: SessionEnd
    predecessor_ref: str
    def __init__(self, session: _Optional[_Union[EventSession, _Mapping]] = ..., status: _Optional[_Union[SessionStatus, _Mapping]] = ..., end: _Optional[_Union[SessionEnd, _Mapping]] = ..., predecessor_ref: _Optional[str] = ...) -> None: ...

class SnapshotEnd(_message.Message):
    __slots__ = ("snapshot_count",)
    SNAPSHOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    snapshot_count: int
    def __init__(self, snapshot_count: _Optional[int] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("session", "limit", "point", "expire_time", "expires_in", "can_extend")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    CAN_EXTEND_FIELD_NUMBER: _ClassVar[int]
    session: EventSession
    limit: Limit
    point: _duration_pb2.Duration
    expire_time: _timestamp_pb2.Timestamp
    expires_in: _duration_pb2.Duration
    can_extend: bool
    def __init__(self, session: _Optional[_Union[EventSession, _Mapping]] = ..., limit: _Optional[_Union[Limit, str]] = ..., point: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., can_extend: _Optional[bool] = ...) -> None: ...

class Cleared(_message.Message):
    __slots__ = ("session", "limit", "cause", "expire_time", "expires_in")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    session: EventSession
    limit: Limit
    cause: ClearedCause
    expire_time: _timestamp_pb2.Timestamp
    expires_in: _duration_pb2.Duration
    def __init__(self, session: _Optional[_Union[EventSession, _Mapping]] = ..., limit: _Optional[_Union[Limit, str]] = ..., cause: _Optional[_Union[ClearedCause, str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("session", "end", "create_time", "last_activity_time")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_ACTIVITY_TIME_FIELD_NUMBER: _ClassVar[int]
    session: EventSession
    end: SessionEnd
    create_time: _timestamp_pb2.Timestamp
    last_activity_time: _timestamp_pb2.Timestamp
    def __init__(self, session: _Optional[_Union[EventSession, _Mapping]] = ..., end: _Optional[_Union[SessionEnd, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_activity_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Draining(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
