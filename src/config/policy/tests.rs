use super::*;
use crate::state::{Activity, Visibility};

fn mins(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn one(text: &str) -> Policy {
    let policies = parse(text).unwrap_or_else(|error| panic!("{text}: {error:#}"));
    policies.into_values().next().unwrap()
}

#[test]
fn without_a_file_there_is_the_default_policy() {
    let policies = parse("").unwrap();
    assert_eq!(policies["default"], Policy::default());
    let limits = &policies["default"].limits;
    assert_eq!(limits.idle_timeout, mins(15));
    assert_eq!(*limits.idle_points, [mins(2), mins(1)]);
    without_file(true).unwrap();
}

#[test]
fn every_key_is_read() {
    let policy = one(r#"
        [policy."Card desk"]
        revision = 7
        idle_timeout = "10m"
        absolute_timeout = "8h"
        warn_before = ["90s"]
        absolute_warn_before = []
        unmatched = "ignore"
        max_extensions = 12
        tombstone_ttl = "48h"
        min_id_length = 32
        work_hold = { max_ttl = "1m", budget = "20m", max_live = 2 }
        presence = { leave_grace = "10s", lost_grace = "3m" }
        max_sessions_per_subject = 3
        at_subject_cap = "end-oldest"
        at_most = true
        enforce = false
        [[policy."Card desk".rules]]
        name = "robots"
        kind = "user"
        host = "*.internal.example"
        verdict = "ignore"
        [[policy."Card desk".rules]]
        name = "clicks"
        method = ["GET", "POST"]
        path = "/desk/**"
        sec_fetch_user = "?1"
        sec_fetch_mode = "navigate"
        sec_fetch_dest = ["document", "iframe"]
        visibility = "visible"
        verdict = "count"
    "#);
    let limits = &policy.limits;
    assert_eq!((&*limits.policy, limits.revision), ("Card desk", 7));
    assert_eq!((limits.idle_timeout, limits.absolute_timeout), (mins(10), mins(480)));
    assert_eq!(*limits.idle_points, [Duration::from_secs(90)]);
    assert!(limits.absolute_points.is_empty());
    assert_eq!((limits.unmatched, limits.max_extensions), (Unmatched::Ignore, Some(12)));
    assert_eq!((limits.tombstone_ttl, policy.min_id_length), (mins(2880), 32));
    assert_eq!(
        (limits.work.max_ttl, limits.work.budget, limits.work.max_live),
        (mins(1), mins(20), 2)
    );
    let presence = limits.presence.unwrap();
    assert_eq!(
        (presence.leave_grace, presence.lost_grace),
        (Duration::from_secs(10), mins(3))
    );
    assert_eq!(
        (presence.max_ttl, presence.max_live),
        (mins(10), 64),
        "what is left out is the usual"
    );
    assert_eq!(
        (policy.max_sessions_per_subject, policy.at_subject_cap),
        (Some(3), AtSubjectCap::EndOldest)
    );
    assert_eq!((limits.at_most, limits.enforced, limits.passive), (true, false, false));
    let [robots, clicks] = &*limits.rules.own else { panic!() };
    assert_eq!(
        (&*robots.name, robots.counts, robots.when.kind),
        ("robots", false, Some(Activity::User))
    );
    assert_eq!(robots.when.host.0[0].text(), "*.internal.example");
    assert_eq!(
        (clicks.counts, clicks.when.visibility),
        (true, Some(Visibility::Visible))
    );
    assert_eq!(clicks.when.method.0.len(), 2);
}

#[test]
fn a_preset_gives_what_is_not_set() {
    let policy = one("[policy.a]\npreset = \"nist-aal3\"\nidle_timeout = \"10m\"\npresence = \"on\"");
    let limits = &policy.limits;
    assert_eq!((limits.idle_timeout, limits.absolute_timeout), (mins(10), mins(720)));
    assert!(limits.at_most);
    assert_eq!((limits.unmatched, limits.work.max_live), (Unmatched::Ignore, 0));
    assert_eq!(limits.presence.unwrap().lost_grace, mins(10));
    assert_eq!(&*limits.policy, "a");
    for name in [
        "nist-aal1",
        "nist-aal2",
        "nist-aal3",
        "pci-dss-8.2.8",
        "owasp-high-value",
    ] {
        let policy = one(&format!("[policy.\"{name}\"]\npreset = \"{name}\""));
        assert_eq!(policy, crate::compliance::Preset::named(name).unwrap().policy());
    }
    let switched_on = one("[policy.a]\npreset = \"nist-aal3\"\nwork_hold = { budget = \"1m\" }");
    assert_eq!(
        (switched_on.limits.work.budget, switched_on.limits.work.max_live),
        (mins(1), 8)
    );
}

#[test]
fn a_passive_policy_has_no_idle_limit() {
    let policy = one("[policy.a]\npassive = true\npresence = \"on\"");
    assert_eq!(policy.limits.idle_timeout, Limits::NEVER);
    assert!(policy.limits.passive && policy.limits.idle_points.is_empty());
    assert_eq!(
        policy.limits.presence.unwrap().lost_grace,
        policy.limits.absolute_timeout
    );
}

#[test]
fn what_is_wrong_with_a_policy_is_said_with_its_line() {
    for (text, told) in [
        (
            "\n\n[policy.a]\nidle_timout = \"1m\"",
            "line 4 (idle_timout = \"1m\"): unknown field `idle_timout`",
        ),
        ("[policy.a]\nidle_timout = \"1m\"", "did you mean `idle_timeout`?"),
        ("[polcy.a]", "did you mean `policy`?"),
        (
            "[policy.a]\nidle_timeout = \"soon\"",
            "line 2 (idle_timeout = \"soon\"): \"soon\" is not a duration",
        ),
        (
            "[policy.a]\nunmatched = \"maybe\"",
            "line 2 (unmatched = \"maybe\"): unknown variant `maybe`",
        ),
        (
            "[policy.a]\n\npreset = \"nist-aal-3\"",
            "line 3 (preset = \"nist-aal-3\"): unknown preset `nist-aal-3`",
        ),
        ("[policy.a]\npreset = \"nist-aal-3\"", "did you mean `nist-aal3`?"),
        (
            "[policy.a]\nwork_hold = { max_tll = \"1m\" }",
            "line 2 (work_hold = { max_tll = \"1m\" }): unknown field `max_tll`",
        ),
        (
            "[policy.a]\nwork_hold = { max_tll = \"1m\" }",
            "did you mean `max_ttl`?",
        ),
        (
            "[policy.a]\nwork_hold = \"of\"",
            "line 2 (work_hold = \"of\"): unknown variant `of`",
        ),
        (
            "[policy.a]\npresence = true",
            "line 2 (presence = true): invalid type: boolean",
        ),
        (
            "[policy.a]\npresence = { leav_grace = \"1m\" }",
            "did you mean `leave_grace`?",
        ),
        ("[policy.a]\nrevision = -1", "line 2 (revision = -1)"),
        (
            "[policy.a]\nat_subject_cap = \"end_oldest\"",
            "did you mean `end-oldest`?",
        ),
        (
            "[[policy.a.rules]]\nname = \"x\"\npth = \"/a\"\nverdict = \"count\"",
            "line 3 (pth = \"/a\"): unknown field `pth`",
        ),
        ("[[policy.a.rules]]\nname = \"x\"", "missing field `verdict`"),
    ] {
        let error = format!("{:#}", parse(text).unwrap_err());
        assert!(error.contains(told), "{text:?}: {error}");
    }
}

#[test]
fn every_key_is_bounded_and_its_error_names_it() {
    for (keys, told) in [
        (
            "idle_timeout = \"0s\"",
            "[policy.a]: idle_timeout must be from 1s to 10 years",
        ),
        (
            "absolute_timeout = \"11years\"",
            "absolute_timeout must be from 1s to 10 years",
        ),
        ("idle_timeout = \"13h\"", "at most absolute_timeout"),
        ("warn_before = [\"0s\"]", "warn_before must be from 1ms to 10 years"),
        (
            "absolute_warn_before = [\"11years\"]",
            "absolute_warn_before must be from 1ms",
        ),
        ("min_id_length = 0", "min_id_length must be from 1 to 256"),
        ("min_id_length = 257", "min_id_length must be from 1 to 256"),
        ("max_extensions = 1000001", "max_extensions must be from 0 to 1000000"),
        ("tombstone_ttl = \"1ms\"", "tombstone_ttl must be from 1s"),
        (
            "work_hold = { max_ttl = \"25h\" }",
            "work_hold.max_ttl must be from 1s to 24h",
        ),
        ("work_hold = { budget = \"0s\" }", "work_hold.budget must be from 1s"),
        (
            "work_hold = { max_live = 0 }",
            "work_hold.max_live must be from 1 to 256",
        ),
        (
            "presence = { leave_grace = \"0s\" }",
            "presence.leave_grace must be from 1s",
        ),
        (
            "presence = { lost_grace = \"0s\" }",
            "presence.lost_grace must be from 1s",
        ),
        (
            "presence = { max_ttl = \"25h\" }",
            "presence.max_ttl must be from 1s to 24h",
        ),
        (
            "presence = { max_live = 257 }",
            "presence.max_live must be from 1 to 256",
        ),
        (
            "max_sessions_per_subject = 0",
            "max_sessions_per_subject must be from 1 to 1000000",
        ),
        (
            "at_subject_cap = \"refuse\"",
            "at_subject_cap needs max_sessions_per_subject",
        ),
        (
            "passive = true\nidle_timeout = \"1m\"",
            "cannot be set with passive = true",
        ),
        (
            "passive = true\nwarn_before = [\"1m\"]",
            "cannot be set with passive = true",
        ),
    ] {
        let error = format!("{:#}", parse(&format!("[policy.a]\n{keys}")).unwrap_err());
        assert!(error.contains(told), "{keys:?}: {error}");
    }
    let seventeen = format!("[policy.a]\nwarn_before = [{}]", "\"1m\", ".repeat(17));
    let error = format!("{:#}", parse(&seventeen).unwrap_err());
    assert!(
        error.contains("warn_before has 17 warning points; at most 16"),
        "{error}"
    );
    let error = format!("{:#}", parse(&format!("[policy.{}]", "a".repeat(129))).unwrap_err());
    assert!(error.contains("name must be 1 to 128 bytes"), "{error}");
    let many: String = (0..1001).map(|n| format!("[policy.p{n}]\n")).collect();
    let error = format!("{:#}", parse(&many).unwrap_err());
    assert!(error.contains("1001 policies; at most 1000"), "{error}");
    let error = format!("{:#}", parse(&"#".repeat((1 << 20) + 1)).unwrap_err());
    assert!(error.contains("at most 1048576 are allowed"), "{error}");
}

#[test]
fn every_rule_is_bounded_and_its_error_names_it() {
    let rule = |keys: &str| format!("[[policy.a.rules]]\nverdict = \"count\"\n{keys}\n");
    for (keys, told) in [
        ("name = \"\"\npath = \"/\"", "name must be 1 to 63 characters"),
        ("name = \"Poll\"\npath = \"/\"", "name must be 1 to 63 characters"),
        ("name = \"unmatched\"\npath = \"/\"", "cannot be named \"unmatched\""),
        ("name = \"x\"", "rule \"x\": it has no condition"),
        (
            "name = \"x\"\nkind = \"background\"",
            "rule \"x\": verdict cannot be \"count\"",
        ),
        (
            "name = \"x\"\nhost = \"a.example.com/api\"",
            "rule \"x\": host \"a.example.com/api\" can never match",
        ),
        ("name = \"x\"\npath = \"/a{\"", "rule \"x\": path \"/a{\" is not a glob"),
        (
            "name = \"x\"\npath = []",
            "rule \"x\": path must be one text or a list of 1 to 16",
        ),
        (
            "name = \"x\"\nmethod = \"G T\"",
            "rule \"x\": method must be 1 to 32 bytes of visible ASCII",
        ),
        ("name = \"x\"\nhost = \"\"", "rule \"x\": host must be 1 to 255 bytes"),
    ] {
        let error = format!("{:#}", parse(&rule(keys)).unwrap_err());
        assert!(
            error.contains(told) && error.contains("[policy.a]"),
            "{keys:?}: {error}"
        );
    }
    let twice = rule("name = \"x\"\npath = \"/\"").repeat(2);
    let error = format!("{:#}", parse(&twice).unwrap_err());
    assert!(error.contains("two rules are named \"x\""), "{error}");
    let many: String = (0..65)
        .map(|n| rule(&format!("name = \"r{n}\"\npath = \"/\"")))
        .collect();
    let error = format!("{:#}", parse(&many).unwrap_err());
    assert!(error.contains("65 rules; at most 64"), "{error}");
}

#[test]
fn the_table_of_keys_has_every_key() {
    let error = toml::from_str::<File>("[policy.a]\nx = 1").err().unwrap().to_string();
    for (key, ..) in KEYS {
        assert!(error.contains(&format!("`{key}`")), "{key} is not read");
    }
    assert_eq!(error.matches('`').count() / 2, KEYS.len() + 1, "{error}");
    let error = toml::from_str::<File>("[[policy.a.rules]]\nx = 1")
        .err()
        .unwrap()
        .to_string();
    assert_eq!(error.matches('`').count() / 2, RULE_KEYS.len() + 1, "{error}");
}

#[test]
fn a_value_out_of_bounds_is_told_with_its_line() {
    for (text, line, says) in [
        (
            "# mine\n[policy.a]\n\nidle_timeout = \"0s\"\n",
            "line 4 (idle_timeout = \"0s\")",
            "[policy.a]: idle_timeout must be from 1s",
        ),
        (
            "[policy.b]\n[policy.a]\nrevision = 1\nwork_hold = { max_live = 0 }\n",
            "line 4 (work_hold",
            "max_live must be from 1 to 256",
        ),
        (
            "[policy.a]\n[policy.a.work_hold]\nbudget = \"1m\"\nmax_ttl = \"25h\"\n",
            "line 4 (max_ttl",
            "work_hold.max_ttl must be from 1s to 24h",
        ),
        (
            "[policy.a]\n[[policy.a.rules]]\nname = \"one\"\npath = \"/\"\nverdict = \"count\"\n[[policy.a.rules]]\n\
             name = \"two\"\nverdict = \"count\"\npath = \"[\"\n",
            "line 9 (path = \"[\")",
            "rule \"two\": path \"[\" is not a glob",
        ),
        (
            "[policy.a]\n[[policy.a.rules]]\nname = \"one\"\nverdict = \"count\"\n",
            "line 3 (name = \"one\")",
            "no condition",
        ),
        (
            "[policy.a]\nidle_timeout = \"13h\"\n",
            "line 2 (idle_timeout",
            "absolute_timeout (12h)",
        ),
        (
            "[policy.a]\nidle_timeout = \"1m\"\npassive = true\n",
            "line 2 (idle_timeout",
            "cannot be set with passive",
        ),
        // Its own line, if no key is to blame.
        (
            "\n[policy.a]\n[[policy.a.rules]]\nname = \"A\"\nverdict = \"count\"\n",
            "line 2 ([policy.a])",
            "1 to 63 characters",
        ),
    ] {
        let error = format!("{:#}", parse(text).unwrap_err());
        assert!(error.starts_with(line) && error.contains(says), "{error}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_told_with_what_is_right() {
    for (line, says) in [
        (
            "revision = -1",
            "expected a whole number. `revision`: A number that grows",
        ),
        ("max_extensions = -1", "0 to 1,000,000"),
        (
            "warn_before = \"2m\"",
            "expected a list like [\"2m\", \"60s\"]. `warn_before`",
        ),
        ("idle_timeout = 900", "expected a text in quotes. `idle_timeout`"),
        ("passive = \"yes\"", "expected true or false. `passive`"),
        ("unmatched = true", "`\"count\"` or `\"ignore\"`"),
    ] {
        let error = format!("{:#}", parse(&format!("[policy.a]\n{line}")).unwrap_err());
        assert!(error.starts_with("line 2 (") && error.contains(says), "{error}");
    }
}

#[test]
fn a_file_without_a_policy_is_bad() {
    for text in ["", "# nothing\n", "[policy]\n"] {
        let error = parse_file(text).unwrap_err().to_string();
        assert!(error.contains("`[policy.default]`"), "{error}");
    }
    assert_eq!(parse_file("[policy.default]").unwrap(), parse("").unwrap());
}
