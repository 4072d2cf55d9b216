//! G15: whoever reads the store, the logs or the metrics finds no session id.

use super::*;
use support::*;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use redis::Value;

/// All bytes of an answer.
fn pour(value: &Value, into: &mut Vec<u8>) {
    match value {
        Value::BulkString(bytes) => into.extend(bytes),
        Value::SimpleString(text) => into.extend(text.bytes()),
        Value::Array(values) | Value::Set(values) => values.iter().for_each(|value| pour(value, into)),
        Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            pour(key, into);
            pour(value, into);
        }),
        _ => {}
    }
    into.push(b'\n');
}

/// All that a store holds: names of keys, and what is in them.
fn dump(server: &Server) -> Vec<u8> {
    let client = redis::Client::open(server.url()).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).expect("keys");
    assert!(keys.len() > 20, "{keys:?}");
    let mut bytes = Vec::new();
    for key in keys {
        bytes.extend(key.bytes());
        let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).expect("a type");
        let words: &[&str] = match kind.as_str() {
            "string" => &["GET", &key],
            "hash" => &["HGETALL", &key],
            "zset" => &["ZRANGE", &key, "0", "-1"],
            "list" => &["LRANGE", &key, "0", "-1"],
            "stream" => &["XRANGE", &key, "-", "+"],
            other => panic!("{key} is a {other}"),
        };
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        pour(&command.query(&mut connection).expect("what is in it"), &mut bytes);
        let raw: Vec<u8> = redis::cmd("DUMP").arg(&key).query(&mut connection).expect("a dump");
        bytes.extend(raw);
    }
    bytes
}

fn finds(text: &[u8], word: &str) -> bool {
    let hex = word.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let forms = [
        word.to_owned(),
        STANDARD.encode(word),
        URL_SAFE_NO_PAD.encode(word),
        hex,
    ];
    forms
        .iter()
        .any(|form| text.windows(form.len()).any(|window| window == form.as_bytes()))
}

#[tokio::test]
async fn g15_no_session_id_is_in_the_store_the_logs_or_the_metrics() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let more = ["--log", "trace", "--store-window", "0s"];
    let (a, b) = (
        site.pod(&server.url(), &more).await,
        site.pod(&server.url(), &more).await,
    );
    let (on_a, on_b) = (&mut a.client().await, &mut b.client().await);
    let request = v1::CreateRequest {
        subject: "ada".to_owned(),
        request_id: "request-canary-0123456789".to_owned(),
        ..Default::default()
    };
    let made = sure!(on_a.create(request.clone())).expect("created").into_inner();
    let watcher = &mut watch(on_b, by_id(&["canary-one", "canary-two", "canary-three"])).await;
    for (client, name, policy) in [
        (&mut *on_a, "canary-one", "default"),
        (&mut *on_b, "canary-brief", "short"),
    ] {
        let request = v1::CreateRequest {
            session_id: id(name),
            subject: "eve".to_owned(),
            policy: policy.to_owned(),
            request_id: format!("request-of-{name}"),
            ..Default::default()
        };
        sure!(client.create(request.clone())).expect("created");
    }
    sure!(touch(on_b, "canary-one")).expect("touched");
    sure!(work(on_a, "canary-one", secs(5))).expect("held");
    sure!(extend(on_b, "canary-one", None)).expect("extended");
    let request = v1::RotateRequest {
        session_id: id("canary-one"),
        new_session_id: id("canary-two"),
        request_id: "rotate-canary-0123456789".to_owned(),
        ..Default::default()
    };
    sure!(on_a.rotate(request.clone())).expect("rotated");
    let request = v1::CheckRequest {
        name: Some(v1::check_request::Name::SessionId(id("canary-one"))),
        ..Default::default()
    };
    sure!(on_b.check(request.clone())).expect("a question is answered");
    sure!(touch(on_b, "canary-never-created")).unwrap_err();
    let mut names = vec![
        "canary-one",
        "canary-two",
        "canary-brief",
        "canary-never-created",
        "canary-late",
    ];
    // Also where something fails.
    server.ask(&["config", "set", "maxmemory", "1mb"]);
    let late = v1::CreateRequest {
        session_id: id("canary-late"),
        ..Default::default()
    };
    on_a.create(late).await.unwrap_err();
    server.ask(&["config", "set", "maxmemory", "0"]);
    server.freeze(true);
    let _ = touch(on_a, "canary-two").await;
    let _ = end(on_a, "canary-two").await;
    server.freeze(false);
    a.answers().await;
    b.answers().await;
    sure!(end(on_b, "canary-two")).expect("ended");
    while word(&watcher.next().await) != "ended LOGOUT" {}
    let ids: Vec<_> = names.drain(..).map(id).chain([made.session_id.clone()]).collect();
    let ids: Vec<_> = ids.into_iter().filter(|id| !id.is_empty()).collect();
    assert_eq!(ids.len(), 6, "{ids:?}");
    let places = [
        ("the store", dump(&server)),
        ("a log", a.log().into_bytes()),
        ("a log", b.log().into_bytes()),
        ("metrics", a.metrics().into_bytes()),
        ("metrics", b.metrics().into_bytes()),
    ];
    assert!(finds(&places[0].1, "ada"), "a subject is found, so an id would be");
    assert!(places[1].1.len() > 10_000, "the logs are at trace level");
    for (place, text) in &places {
        for id in &ids {
            assert!(!finds(text, id), "an id is in {place}");
            assert!(!finds(text, id.trim_end_matches('-')), "a part of an id is in {place}");
        }
        for request in ["request-canary-0123456789", "rotate-canary-0123456789"] {
            assert!(!finds(text, request), "a request id is in {place}");
        }
    }
}
