use super::*;
use crate::servers::Server;

#[tokio::test]
async fn a_script_is_brought_along_once() {
    let server = Server::start(&[]).await;
    let mut running = link(settings(&server.url()), &[]);
    running.up().await;
    for expected in 1..=3 {
        let answer = running.link.call(call(&COUNT, "k", "")).await;
        assert_eq!(answer, Ok(Value::Int(expected)));
    }
    let told = server.ask(&["info", "commandstats"]);
    assert!(told.contains("cmdstat_eval:calls=1,"), "{told}");
    assert!(told.contains("cmdstat_evalsha:calls=3,"), "{told}");
    // The server forgets its scripts.
    assert_eq!(server.ask(&["script", "flush"]), "OK");
    assert_eq!(running.link.call(call(&COUNT, "k", "")).await, Ok(Value::Int(4)));
    assert_eq!(running.link.call(call(&COUNT, "k", "")).await, Ok(Value::Int(5)));
}

#[tokio::test]
async fn many_calls_at_once_and_an_error_is_only_that_ones() {
    let server = Server::start(&[]).await;
    let mut running = link(settings(&server.url()), &[]);
    running.up().await;
    // In the first round the server knows none of the scripts.
    for round in 0..2 {
        let calls = (0..100).map(|n| match n {
            40 => call(&FAIL, "k", ""),
            n if n % 2 == 0 => call(&COUNT, "k", ""),
            n => call(&ECHO, "k", &n.to_string()),
        });
        let answers = running.link.calls(calls.collect()).await;
        assert_eq!(answers.len(), 100);
        let mut count = round * 49;
        for (n, answer) in answers.into_iter().enumerate() {
            match n {
                40 => assert_eq!(answer, Err(Fault::Refused("SOUR grapes".into()))),
                n if n % 2 == 0 => {
                    count += 1;
                    assert_eq!(answer, Ok(Value::Int(count)));
                }
                n => assert_eq!(answer, text(&n.to_string())),
            }
        }
        // Two scripts that had to be brought along; and no more.
        let told = server.ask(&["info", "commandstats"]);
        assert!(told.contains("cmdstat_eval:calls=3,"), "{told}");
    }
    assert_eq!(running.link.calls(Vec::new()).await, []);
}

#[tokio::test]
async fn plain_commands_and_errors() {
    let server = Server::start(&[]).await;
    let mut running = link(settings(&format!("{}/3", server.url())), &[]);
    running.up().await;
    let mut set = redis::cmd("SET");
    set.arg("k").arg("v");
    assert_eq!(running.link.command(b"k", set).await, Ok(Value::Okay));
    assert_eq!(server.ask(&["-n", "3", "get", "k"]), "v");
    let fault = running.link.call(call(&COUNT, "k", "")).await.unwrap_err();
    assert!(matches!(&fault, Fault::Refused(_)), "{fault}");
    // No memory for more.
    assert_eq!(server.ask(&["config", "set", "maxmemory", "1"]), "OK");
    let fault = running.link.call(call(&COUNT, "n", "")).await.unwrap_err();
    assert!(matches!(&fault, Fault::Full(_)), "{fault}");
    assert!(!fault.is_transient());
    assert_eq!(running.link.call(call(&ECHO, "n", "a")).await, text("a"));
}

#[tokio::test]
async fn a_user_without_a_command() {
    let server = Server::start(&[]).await;
    let allow = ["acl", "setuser", "app", "on", ">secret", "~*", "&*", "+@all", "-incr"];
    assert_eq!(server.ask(&allow), "OK");
    let mut settings = settings(&server.url().replace("://", "://app@"));
    settings.password = Some("secret".into());
    let mut running = link(settings, &[]);
    running.up().await;
    let fault = running.link.call(call(&COUNT, "k", "")).await.unwrap_err();
    assert!(matches!(&fault, Fault::Refused(_)), "{fault}");
    assert_eq!(running.link.call(call(&ECHO, "n", "a")).await, text("a"));
}
