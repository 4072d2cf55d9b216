use super::*;

const NOTHING: Hints<'_> = Hints {
    host: "",
    method: "",
    path: "",
    sec_fetch_user: "",
    sec_fetch_mode: "",
    sec_fetch_dest: "",
    sec_purpose: "",
    visibility: Visibility::Unspecified,
    input_report: false,
};

fn words(words: &[&str]) -> OneOf<Word> {
    OneOf(words.iter().map(|word| Word((*word).into())).collect())
}

fn paths(globs: &[&str]) -> OneOf<Pattern> {
    OneOf(globs.iter().map(|glob| Pattern::path(glob).unwrap()).collect())
}

fn rules(rules: Vec<(&str, bool, When)>) -> Rules {
    let rule = |(name, counts, when): (&str, bool, When)| {
        Arc::new(Rule {
            name: name.into(),
            counts,
            when,
        })
    };
    Rules {
        own: rules.into_iter().map(rule).collect(),
    }
}

/// The rule, whether it counts, whether it is surely a person's.
type Told = (&'static str, bool, bool);

fn told(verdict: &Verdict) -> (String, bool, bool) {
    (verdict.rule.to_string(), verdict.counts, verdict.user)
}

#[test]
fn built_in_rules_judge_what_a_browser_says_if_the_policy_has_none() {
    let navigation = Hints {
        sec_fetch_mode: "navigate",
        sec_fetch_user: "?1",
        sec_fetch_dest: "document",
        ..NOTHING
    };
    let script = Hints {
        sec_fetch_mode: "cors",
        sec_fetch_dest: "empty",
        ..NOTHING
    };
    let hidden = Hints {
        visibility: Visibility::Hidden,
        ..script
    };
    let table: [(&str, Activity, Hints<'_>, bool, Told); 14] = [
        (
            "a navigation",
            Activity::Unspecified,
            navigation,
            false,
            ("user-navigation", true, true),
        ),
        (
            "a navigation by a script",
            Activity::Unspecified,
            Hints {
                sec_fetch_user: "",
                ..navigation
            },
            false,
            ("unmatched", true, false),
        ),
        (
            "a prefetch that looks like a navigation",
            Activity::Unspecified,
            Hints {
                sec_purpose: "prefetch",
                ..navigation
            },
            false,
            ("prefetch", false, false),
        ),
        (
            "a prerender",
            Activity::Unspecified,
            Hints {
                sec_purpose: "prefetch;prerender",
                ..NOTHING
            },
            false,
            ("prefetch", false, false),
        ),
        (
            "a prerender, spaced",
            Activity::Unspecified,
            Hints {
                sec_purpose: "other; Prerender",
                ..NOTHING
            },
            false,
            ("prefetch", false, false),
        ),
        (
            "a word that only contains it",
            Activity::Unspecified,
            Hints {
                sec_purpose: "noprefetch",
                ..NOTHING
            },
            false,
            ("unmatched", true, false),
        ),
        (
            "a hidden page's poll",
            Activity::Unspecified,
            hidden,
            false,
            ("hidden-page", false, false),
        ),
        (
            "declared in a hidden page",
            Activity::User,
            hidden,
            true,
            ("declared-user", true, true),
        ),
        (
            "a script's request",
            Activity::Unspecified,
            script,
            false,
            ("unmatched", true, false),
        ),
        (
            "a script's request beside input reports",
            Activity::Unspecified,
            script,
            true,
            ("script-request", false, false),
        ),
        (
            "an input report",
            Activity::Unspecified,
            Hints {
                input_report: true,
                ..script
            },
            true,
            ("unmatched", true, false),
        ),
        (
            "a declared one beside input reports",
            Activity::User,
            script,
            true,
            ("declared-user", true, true),
        ),
        (
            "a declared poll",
            Activity::Background,
            navigation,
            false,
            ("declared-background", false, false),
        ),
        (
            "nothing known",
            Activity::Unspecified,
            NOTHING,
            true,
            ("unmatched", true, false),
        ),
    ];
    for (case, activity, hints, reports, expected) in table {
        let verdict = Rules::default().judge(activity, Some(&hints), || reports, Unmatched::Count);
        let (name, counts, user) = told(&verdict);
        assert_eq!((name.as_str(), counts, user), expected, "{case}");
    }
}

#[test]
fn without_hints_only_the_declared_kind_and_unmatched_decide() {
    let never = || panic!("not asked");
    for (activity, unmatched, expected) in [
        (Activity::Unspecified, Unmatched::Count, ("unmatched", true, false)),
        (Activity::Unspecified, Unmatched::Ignore, ("unmatched", false, false)),
        (Activity::User, Unmatched::Ignore, ("declared-user", true, true)),
        (
            Activity::Background,
            Unmatched::Count,
            ("declared-background", false, false),
        ),
    ] {
        let (name, counts, user) = told(&Rules::default().judge(activity, None, never, unmatched));
        assert_eq!((name.as_str(), counts, user), expected);
    }
}

#[test]
fn the_first_own_rule_that_matches_decides_and_is_named() {
    let rules = rules(vec![
        (
            "poll",
            false,
            When {
                path: paths(&["/api/*/poll", "/ws/**"]),
                ..When::default()
            },
        ),
        (
            "read-api",
            true,
            When {
                method: words(&["GET", "HEAD"]),
                path: paths(&["/api/**"]),
                host: OneOf([Pattern::host("*.shop.example").unwrap()].into()),
                ..When::default()
            },
        ),
        (
            "seen",
            true,
            When {
                visibility: Some(Visibility::Visible),
                sec_fetch_dest: words(&["empty"]),
                ..When::default()
            },
        ),
        (
            "warm-up",
            false,
            When {
                sec_purpose: words(&["prefetch"]),
                ..When::default()
            },
        ),
    ]);
    let api = Hints {
        host: "EU.Shop.Example",
        method: "get",
        path: "/api/v1/orders?page=2",
        ..NOTHING
    };
    let table: [(&str, Hints<'_>, Told); 12] = [
        (
            "both match",
            Hints {
                path: "/api/v1/poll",
                ..api
            },
            ("poll", false, false),
        ),
        (
            "`*` stays in a segment",
            Hints {
                path: "/api/v1/a/poll",
                ..api
            },
            ("read-api", true, true),
        ),
        (
            "`**` crosses",
            Hints {
                path: "/ws/a/b/c",
                ..NOTHING
            },
            ("poll", false, false),
        ),
        (
            "the query is not looked at",
            Hints {
                path: "/x?/ws/a",
                ..NOTHING
            },
            ("unmatched", false, false),
        ),
        (
            "a query does not hide it",
            Hints {
                path: "/ws/a?b=/c",
                ..NOTHING
            },
            ("poll", false, false),
        ),
        ("letters of a host and a method", api, ("read-api", true, true)),
        (
            "another method",
            Hints { method: "POST", ..api },
            ("unmatched", false, false),
        ),
        (
            "another host",
            Hints {
                host: "shop.example.org",
                ..api
            },
            ("unmatched", false, false),
        ),
        (
            "an unknown host meets no condition",
            Hints { host: "", ..api },
            ("unmatched", false, false),
        ),
        (
            "visible",
            Hints {
                visibility: Visibility::Visible,
                sec_fetch_dest: "empty",
                ..NOTHING
            },
            ("seen", true, true),
        ),
        (
            "of many words",
            Hints {
                sec_purpose: "prefetch;prerender",
                ..NOTHING
            },
            ("warm-up", false, false),
        ),
        (
            "no built-in rule beside own ones",
            Hints {
                sec_fetch_mode: "navigate",
                sec_fetch_user: "?1",
                ..NOTHING
            },
            ("unmatched", false, false),
        ),
    ];
    for (case, hints, expected) in table {
        let verdict = rules.judge(Activity::Unspecified, Some(&hints), || true, Unmatched::Ignore);
        let (name, counts, user) = told(&verdict);
        assert_eq!((name.as_str(), counts, user), expected, "{case}");
    }
    let unknown = rules.judge(Activity::Unspecified, None, || true, Unmatched::Count);
    assert_eq!(told(&unknown), ("unmatched".to_owned(), true, false));
}

#[test]
fn a_declared_kind_is_met_only_by_rules_that_name_it() {
    let rules = rules(vec![
        (
            "robot",
            false,
            When {
                kind: Some(Activity::User),
                path: paths(&["/robot/**"]),
                ..When::default()
            },
        ),
        (
            "sync",
            true,
            When {
                kind: Some(Activity::Background),
                ..When::default()
            },
        ),
        (
            "all",
            false,
            When {
                path: paths(&["/**"]),
                ..When::default()
            },
        ),
    ]);
    let at = |path: &'static str| Hints { path, ..NOTHING };
    for (activity, hints, expected) in [
        (Activity::User, Some(at("/robot/1")), ("robot", false, false)),
        (Activity::User, Some(at("/page")), ("declared-user", true, true)),
        (Activity::User, None, ("declared-user", true, true)),
        // G9: whatever a rule says.
        (Activity::Background, Some(at("/page")), ("sync", false, false)),
        (Activity::Background, None, ("sync", false, false)),
        (Activity::Unspecified, Some(at("/robot/1")), ("all", false, false)),
    ] {
        let verdict = rules.judge(activity, hints.as_ref(), || false, Unmatched::Count);
        let (name, counts, user) = told(&verdict);
        assert_eq!((name.as_str(), counts, user), expected);
    }
}

#[test]
fn globs_are_what_the_docs_say() {
    for (glob, path, expected) in [
        ("/api/*", "/api/a", true),
        ("/api/*", "/api/a/b", false),
        ("/api/**", "/api/a/b", true),
        ("/api/**", "/api", false),
        ("/api/**", "/api/", true),
        ("/**/poll", "/poll", true),
        ("/**/poll", "/a/b/poll", true),
        ("/**", "/", true),
        ("/{a,b}/x", "/b/x", true),
        ("/v?/x", "/v1/x", true),
        ("/v?/x", "/v//x", false),
        ("/API", "/api", false),
    ] {
        assert_eq!(Pattern::path(glob).unwrap().is_match(path), expected, "{glob} {path}");
    }
    assert!(Pattern::path("/a{b").is_err());
    assert_eq!(format!("{:?}", Pattern::path("/a/*").unwrap()), "\"/a/*\"");
}

#[test]
fn a_glob_that_cannot_be_compiled_is_refused_and_ends_nobody() {
    let nested = |depth| "{a".repeat(depth) + &"}".repeat(depth);
    assert!(Pattern::path(&nested(8)).is_ok());
    let within_a_policy_file = nested(170);
    assert!(within_a_policy_file.len() <= 512);
    assert!(Pattern::path(&within_a_policy_file).is_err());
    assert!(Pattern::host(&"a".repeat(1 << 20)).is_err());
}

#[test]
fn every_built_in_name_is_reserved() {
    for rule in [
        RuleName::DeclaredUser,
        RuleName::DeclaredBackground,
        RuleName::Prefetch,
        RuleName::HiddenPage,
        RuleName::UserNavigation,
        RuleName::ScriptRequest,
        RuleName::Unmatched,
    ] {
        assert!(BUILT_IN.contains(&rule.to_string().as_str()));
    }
}
