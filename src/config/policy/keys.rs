//! The keys of a policy, for the table in the docs.

/// A key, its default, and what it says.
pub(crate) type Key = (&'static str, &'static str, &'static str);

/// The keys of `[policy.NAME]`.
pub(crate) const KEYS: [Key; 18] = [
    (
        "preset",
        "none",
        "Defaults to start from: `\"nist-aal1\"`, `\"nist-aal2\"`, `\"nist-aal3\"`, `\"pci-dss-8.2.8\"` or \
         `\"owasp-high-value\"` (`session-sidecar policy presets` prints them). Other keys override it.",
    ),
    (
        "revision",
        "`0`",
        "A number that grows with each change, so that an older file never overwrites a newer one. 0: not managed, \
         every change is taken over. 0 to 9223372036854775807.",
    ),
    (
        "idle_timeout",
        "`\"15m\"`",
        "Inactivity that ends a session (NIST SP 800-63B-4 §2.2.3, §2.3.3: at most 1 h at AAL2, 15 min at AAL3; PCI \
         DSS 8.2.8: 15 min). 1 s to 10 years, at most `absolute_timeout`. Not together with `passive`.",
    ),
    (
        "absolute_timeout",
        "`\"12h\"`",
        "Time since authentication that ends a session, active or not (NIST SP 800-63B-4 §2.2.3, §2.3.3: at most 24 \
         h at AAL2, 12 h at AAL3). 1 s to 10 years.",
    ),
    (
        "warn_before",
        "`[\"2m\", \"60s\"]`",
        "Warning points before the idle deadline, up to 16, each 1 ms to 10 years (WCAG 2.2.1: at least 20 s). A \
         lead over half of `idle_timeout` fires at half of it.",
    ),
    (
        "absolute_warn_before",
        "`[\"10m\", \"2m\"]`",
        "Warning points before the absolute deadline, up to 16, each 1 ms to 10 years. A lead over half of \
         `absolute_timeout` fires at half of it.",
    ),
    (
        "unmatched",
        "`\"count\"`",
        "What a touch is that declares no activity kind and that no rule matches: `\"count\"` or `\"ignore\"`. With \
         `\"count\"` a poll keeps a session alive.",
    ),
    (
        "max_extensions",
        "none",
        "How many Extends in a row are granted without a counted touch: 0 to 1,000,000 (WCAG 2.2.1: at least 10).",
    ),
    (
        "tombstone_ttl",
        "`\"24h\"`",
        "How long an ended session is remembered. 1 s to 10 years.",
    ),
    (
        "min_id_length",
        "`16`",
        "The shortest session id that Create accepts, in bytes: 1 to 256 (OWASP ASVS 5.0 7.2.3 asks for 128 bits: 22 \
         characters of base64url, 32 of hex).",
    ),
    (
        "work_hold",
        "`{ max_ttl = \"5m\", budget = \"2h\", max_live = 8 }`",
        "Holds for long work, or `\"off\"`. `max_ttl`: the longest TTL, 1 s to 24 h. `budget`: how far from the \
         first hold since a person's last activity they reach, 1 s to 10 years. `max_live`: how many at once, 1 to \
         256.",
    ),
    (
        "presence",
        "`\"off\"`",
        "Holds for open pages: `\"off\"`, `\"on\"`, or `{ leave_grace = \"30s\", lost_grace = (idle_timeout), \
         max_ttl = \"10m\", max_live = 64 }`. The session ends `leave_grace` after the last page was left, or \
         `lost_grace` after it was lost sight of, each 1 s to 10 years. `max_ttl`: 1 s to 24 h; `max_live`: 1 to \
         256.",
    ),
    (
        "max_sessions_per_subject",
        "none",
        "How many live sessions a subject may have under this policy: 1 to 1,000,000 (OWASP ASVS 5.0 7.1.2).",
    ),
    (
        "at_subject_cap",
        "`\"refuse\"`",
        "What happens to one more: `\"refuse\"` it, or `\"end-oldest\"` ones as SUPERSEDED. Only with \
         `max_sessions_per_subject`.",
    ),
    (
        "passive",
        "`false`",
        "For reading only: inactivity does not end the session, and touches for other methods than GET, HEAD and \
         OPTIONS are refused.",
    ),
    (
        "at_most",
        "`false`",
        "The timeouts are upper bounds: a shared store rounds idle time down, never up, and an Extend reaches one \
         idle timeout at most, whatever is wanted.",
    ),
    (
        "enforce",
        "`true`",
        "`false`: everything is judged and explained, and time ends nothing.",
    ),
    (
        "rules",
        "none",
        "What counts as activity: up to 64 rules, in their order. See below.",
    ),
];

/// The keys of `[[policy.NAME.rules]]`.
pub(crate) const RULE_KEYS: [Key; 11] = [
    (
        "name",
        "required",
        "Told in answers: 1 to 63 characters of `a-z`, `0-9`, `-` and `_`, unique in the policy, none of the \
         built-in names.",
    ),
    ("verdict", "required", "`\"count\"` or `\"ignore\"`."),
    (
        "kind",
        "none declared",
        "The declared activity kind: `\"user\"`, `\"background\"` or `\"unspecified\"`. Touches that declare a kind \
         are met only by rules that name it. BACKGROUND never counts.",
    ),
    (
        "host",
        "any",
        "The host, without port: a glob, letters of either case. A text or a list of up to 16, as all keys below but \
         `visibility`.",
    ),
    ("method", "any", "The HTTP method."),
    (
        "path",
        "any",
        "The path without what follows `?`: a glob. `*` and `?` stay within a segment, `**` as a whole segment \
         crosses them, `{a,b}` is either.",
    ),
    (
        "sec_fetch_user",
        "any",
        "The header Sec-Fetch-User: `\"?1\"` if a person started a navigation.",
    ),
    (
        "sec_fetch_mode",
        "any",
        "The header Sec-Fetch-Mode: `\"navigate\"`, `\"cors\"`, …",
    ),
    (
        "sec_fetch_dest",
        "any",
        "The header Sec-Fetch-Dest: `\"document\"`, `\"empty\"`, …",
    ),
    (
        "sec_purpose",
        "any",
        "A word of the header Sec-Purpose: `\"prefetch\"`, `\"prerender\"`.",
    ),
    (
        "visibility",
        "any",
        "Whether the page can be seen: `\"visible\"` or `\"hidden\"`.",
    ),
];

/// The keys of `[door]`.
pub(crate) const DOOR_KEYS: [Key; 7] = [
    (
        "tenant",
        "`\"\"`",
        "The tenant of all sessions of the door. At most 128 bytes of visible ASCII.",
    ),
    (
        "cookies",
        "`[\"sessionid\"]`",
        "Cookies that carry a session's id: the first of these that a request has. A name, or `{ name, path, domain }` as the application \
         sets it: without these the browser would not let go of it (RFC 6265 §5.3). Up to 8.",
    ),
    (
        "header",
        "none",
        "A request header that carries the id, for callers without cookies. Looked at first.",
    ),
    (
        "origins",
        "`[]`",
        "Origins beside the request's own host whose pages may change something: `\"https://app.example\"`. Up to 64.",
    ),
    (
        "login_url",
        "`\"/login\"`",
        "Where people log in: a path, or a URL. Public by construction; the reason of an end and where to go on are added as `reason` and \
         `next`. At most 1,024 bytes.",
    ),
    (
        "unknown",
        "`\"deny\"`",
        "An id that the sidecar has not seen: refused; `\"allow-untracked\"`: let pass by `/authz`, and no time runs; or `\"start\"`: a session \
         begins with it.",
    ),
    (
        "start",
        "none",
        "With `unknown = \"start\"`: `{ max_sessions, rate, app_session_age, allow_revival }`. None begins while there are `max_sessions` live \
         ones (10,000), and `rate` a second at most (50). `app_session_age`: how long the application knows its own session, at most \
         `tombstone_ttl`, for an ended one would come back then; unless `allow_revival` is true.",
    ),
];

/// The keys of `[[door.routes]]`.
pub(crate) const ROUTE_KEYS: [Key; 5] = [
    ("host", "any", "Hosts without port, as a glob or a list of up to 16."),
    ("path", "any", "Paths without query, as a glob or a list of up to 16."),
    (
        "public",
        "`false`",
        "Nobody is refused, and no time runs. Not for paths that servers read in different ways (`..`, `//`, `;`, an encoded slash or dot).",
    ),
    (
        "passive",
        "`false`",
        "Never activity; with `unknown = \"start\"` no session begins here either, and an unknown id passes.",
    ),
    (
        "policy",
        "`\"default\"`",
        "The policy of sessions that begin here, with `unknown = \"start\"`.",
    ),
];

/// The keys of `[[callers]]`.
pub(crate) const CALLER_KEYS: [Key; 5] = [
    (
        "certificate",
        "one of three",
        "The caller's client certificate has this name: a subject alternative name (URI, DNS or email), or, if it has none, its common name.",
    ),
    (
        "token_file",
        "one of three",
        "The caller shows the bearer token in this file, an absolute path; two, on lines of their own, while it is changed. Followed.",
    ),
    (
        "uid",
        "one of three",
        "The caller's process has this effective user, at a Unix socket.",
    ),
    (
        "tenants",
        "`[\"\"]`",
        "The tenants that it may name, each at most 128 bytes of visible ASCII.",
    ),
    (
        "verbs",
        "required",
        "The groups of verbs that it may use: `\"use\"`, `\"issue\"`, `\"end\"`, `\"watch-own\"`, `\"watch-all\"`, `\"admin\"`.",
    ),
];
