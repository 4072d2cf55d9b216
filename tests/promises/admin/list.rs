//! ListSessions: filters and pages.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_filter_finds_what_matches_all_of_it() {
    let sidecar = Sidecar::with_policies("[policy.default]\n[policy.other]\n");
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    let mut by_name = std::collections::BTreeMap::new();
    for (name, subject, policy, app) in [
        ("a", "ada", "default", "shop"),
        ("b", "ada", "other", "shop"),
        ("c", "eve", "default", "desk"),
        ("d", "", "default", ""),
    ] {
        let session = create_with(client, name, |create| {
            create.subject = subject.to_owned();
            create.policy = policy.to_owned();
            if !app.is_empty() {
                create.labels = [("app".to_owned(), app.to_owned())].into();
            }
        })
        .await;
        by_name.insert(status(&session).session_ref.clone(), name);
    }
    end(client, "c").await.expect("ended");
    let mut names = async |change: &dyn Fn(&mut v1::SessionFilter)| {
        let mut filter = v1::SessionFilter::default();
        change(&mut filter);
        let mut names: Vec<_> = refs(admin, filter).await.iter().map(|name| by_name[name]).collect();
        names.sort_unstable();
        names.join("")
    };
    assert_eq!(names(&|_| {}).await, "abd");
    assert_eq!(names(&|filter| filter.subject = "ada".to_owned()).await, "ab");
    assert_eq!(names(&|filter| filter.subject = "nobody".to_owned()).await, "");
    assert_eq!(names(&|filter| filter.policy = "default".to_owned()).await, "ad");
    let shop = |filter: &mut v1::SessionFilter| filter.labels = [("app".to_owned(), "shop".to_owned())].into();
    assert_eq!(names(&shop).await, "ab");
    let both = |filter: &mut v1::SessionFilter| {
        shop(filter);
        filter.policy = "other".to_owned();
    };
    assert_eq!(names(&both).await, "b");
    assert_eq!(
        names(&|filter| filter.states = vec![SessionState::Ended.into()]).await,
        "c"
    );
    let eve = |filter: &mut v1::SessionFilter| {
        filter.subject = "eve".to_owned();
        filter.states = vec![SessionState::Ended.into()];
    };
    assert_eq!(names(&eve).await, "c");
    let any = |filter: &mut v1::SessionFilter| {
        filter.states = [SessionState::Active, SessionState::Expiring, SessionState::Ended]
            .map(Into::into)
            .into();
    };
    assert_eq!(names(&any).await, "abcd");
    pass(mins(14)).await;
    touch(client, "a").await.expect("touched");
    assert_eq!(
        names(&|filter| filter.states = vec![SessionState::Expiring.into()]).await,
        "bd"
    );
    assert_eq!(
        names(&|filter| filter.states = vec![SessionState::Active.into()]).await,
        "a"
    );
}

#[tokio::test(start_paused = true)]
async fn g2_a_passed_deadline_is_passed_for_a_list_too() {
    let sidecar = Sidecar::with(Options {
        driver: false,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create(client, "alice").await;
    pass_without_driver(&sidecar, mins(15)).await;
    assert!(refs(admin, v1::SessionFilter::default()).await.is_empty());
    let ended = list_with(admin, |list| {
        list.filter = Some(v1::SessionFilter {
            states: vec![SessionState::Ended.into()],
            ..Default::default()
        });
    })
    .await
    .expect("listed");
    let end = ended.sessions[0].end.as_ref().expect("an end");
    assert_eq!(end.reason(), EndReason::IdleTimeout);
}

#[tokio::test(start_paused = true)]
async fn pages_miss_nobody_who_stays_and_tell_nobody_twice() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    let mut stays = BTreeSet::new();
    let mut goes = Vec::new();
    for number in 0..60 {
        let session = create(client, &format!("first-{number}")).await;
        if number % 3 == 0 {
            goes.push(format!("first-{number}"));
        } else {
            stays.insert(status(&session).session_ref.clone());
        }
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    for page in 0.. {
        let listed = list_with(admin, |list| {
            list.page_size = Some(7);
            list.page_token.clone_from(&token);
        })
        .await
        .expect("listed");
        assert!(listed.sessions.len() == 7 || listed.next_page_token.is_empty());
        seen.extend(
            listed
                .sessions
                .iter()
                .map(|session| status(session).session_ref.clone()),
        );
        token = listed.next_page_token;
        if token.is_empty() {
            break;
        }
        // Between two pages some come and some go.
        create(client, &format!("later-{page}")).await;
        if let Some(name) = goes.pop() {
            end(client, &name).await.expect("ended");
        }
    }
    let once: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(once.len(), seen.len(), "nobody twice");
    assert!(stays.is_subset(&once), "nobody is missed");
    let whole = list_with(admin, |list| list.page_size = Some(1000))
        .await
        .expect("listed");
    assert!(whole.next_page_token.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_page_token_is_good_for_its_own_list_only() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client_for(&["", "b"]).await;
    let admin = &mut sidecar.admin_for(&["", "b"]).await;
    for name in ["a", "b", "c"] {
        create(client, name).await;
    }
    let first = list_with(admin, |list| list.page_size = Some(2)).await.expect("listed");
    let token = first.next_page_token;
    let mut garbled = token.clone();
    garbled.replace_range(30..31, if &token[30..31] == "A" { "B" } else { "A" });
    let other_filters = [
        of("ada"),
        Some(v1::SessionFilter {
            tenant: "b".to_owned(),
            ..Default::default()
        }),
        Some(v1::SessionFilter {
            states: vec![SessionState::Ended.into()],
            ..Default::default()
        }),
    ];
    let foreign = other_filters.into_iter().map(|filter| (filter, token.clone()));
    let bad = [garbled, "x".to_owned(), "ü".repeat(22), "A".repeat(257)];
    for (filter, token) in foreign.chain(bad.map(|token| (None, token))) {
        let refused = list_with(admin, |list| {
            list.filter = filter;
            list.page_token = token;
        })
        .await
        .unwrap_err();
        assert_eq!(
            (refused.code(), field(&refused)),
            (Code::InvalidArgument, "page_token".to_owned())
        );
    }
    // The same filter said otherwise is the same list.
    let second = list_with(admin, |list| {
        list.filter = Some(v1::SessionFilter {
            states: [SessionState::Expiring, SessionState::Active].map(Into::into).into(),
            ..Default::default()
        });
        list.page_token.clone_from(&token);
    })
    .await
    .expect("goes on");
    assert_eq!((second.sessions.len(), second.next_page_token.as_str()), (1, ""));
}

/// A list walks from one part of the table to the next and stops when its page is full: what it tells must be the same as if
/// it had looked at everything and sorted it.
#[tokio::test(start_paused = true)]
async fn pages_are_slices_of_one_order_of_live_and_ended_ones() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    let (mut all, mut ended, mut own) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for number in 0..1500 {
        let name = format!("s{number}");
        let subject = if number % 5 == 0 { "ada" } else { "eve" };
        let session = create_with(client, &name, |create| create.subject = subject.to_owned()).await;
        let reference: SessionRef = status(&session).session_ref.parse().expect("a ref");
        all.insert(reference);
        if subject == "ada" {
            own.insert(reference);
        }
        if number % 3 == 0 {
            end(client, &name).await.expect("ended");
            ended.insert(reference);
        }
    }
    let any = [SessionState::Active, SessionState::Expiring, SessionState::Ended];
    let live: BTreeSet<_> = all.difference(&ended).copied().collect();
    let own_ended: BTreeSet<_> = own.intersection(&ended).copied().collect();
    for (subject, states, wanted) in [
        ("", &any[..], &all),
        ("", &any[..2], &live),
        ("", &any[2..], &ended),
        ("ada", &any[..], &own),
        ("ada", &any[2..], &own_ended),
    ] {
        for page_size in [7, 1000] {
            let filter = v1::SessionFilter {
                subject: subject.to_owned(),
                states: states.iter().map(|state| (*state).into()).collect(),
                ..Default::default()
            };
            let (mut told, mut token) = (Vec::new(), String::new());
            loop {
                let page = list_with(admin, |list| {
                    list.filter = Some(filter.clone());
                    list.page_size = Some(page_size);
                    list.page_token.clone_from(&token);
                })
                .await
                .expect("listed");
                let refs = page.sessions.iter().map(|session| status(session).session_ref.clone());
                told.extend(refs.map(|name| name.parse::<SessionRef>().expect("a ref")));
                token = page.next_page_token;
                if token.is_empty() {
                    break;
                }
                assert_eq!(
                    page.sessions.len(),
                    page_size as usize,
                    "only the last page is not full"
                );
            }
            assert!(told.iter().eq(wanted), "{subject:?} {states:?} {page_size}");
        }
    }
    let counted = stats(admin).await;
    assert_eq!(
        (counted.states[0].session_count, ends(&counted, EndReason::Logout)),
        (1000, 500)
    );
}
