//! What is refused at the start, and what `store check` says of it.

use super::*;
use servers::{Certificates, Cluster};

#[tokio::test]
async fn a_store_that_is_fit() {
    let site = Site::new();
    let server = Server::start(&["--appendonly", "yes", "--maxmemory", "100mb"]).await;
    let (code, said) = site.store(&["check"], &server.url(), &[]);
    assert_eq!(code, 0, "{said}");
    for word in [
        "ok    appendonly is on",
        "MiB are in use (maxmemory)",
        "maxmemory-policy is noeviction",
        "every command and every script ran",
        "is not there yet: the first sidecar makes it, with 16 buckets",
        "goes on in step",
        "there and back",
        "the store is fit",
    ] {
        assert!(said.contains(word), "{word} in {said}");
    }
    assert_eq!(server.ask(&["--scan"]), "", "it leaves nothing behind");
    let (code, said) = site.store(&["inspect"], &server.url(), &[]);
    assert!(code == 0 && said.contains("no sidecar ever came into it"), "{said}");
    let pod = site.pod(&server.url(), &[]).await;
    let (code, said) = site.store(&["check"], &server.url(), &[]);
    assert!(
        code == 0 && said.contains("that of --store-key-file") && said.contains("it has 16 buckets"),
        "{said}"
    );
    let mut client = pod.client().await;
    let alice = begin(&mut client, "alice", "default").await;
    let (code, said) = site.store(&["inspect"], &server.url(), &[]);
    assert!(
        code == 0 && said.contains("1 live sessions") && said.contains("default") && said.contains("16 buckets"),
        "{said}"
    );
    let (_, said) = site.store(&["inspect", "--session", &alice], &server.url(), &[]);
    assert!(
        said.contains("live, version 1") && said.contains("(idle)") && !said.contains("subject-of-alice"),
        "{said}"
    );
    let (_, said) = site.store(&["inspect", "--session", &alice, "--show-subject"], &server.url(), &[]);
    assert!(said.contains("subject-of-alice"), "{said}");
}

#[tokio::test]
async fn what_no_waiting_mends_is_said_clearly() {
    let site = Site::new();
    let check = |url: &str, more: &[&str], wanted: i32, word: &str| {
        let (code, said) = site.store(&["check"], url, more);
        assert!(
            code == wanted && said.contains(word),
            "{word:?} and {wanted}, not {code}: {said}"
        );
    };
    let server = Server::start(&["--requirepass", "secret"]).await;
    let password = site.file("password");
    check(&server.url(), &[], 1, "wants a password");
    check(
        &server.url(),
        &["--store-password-file", &password],
        1,
        "does not accept the user and password",
    );
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]).await;
    check(&server.url(), &[], 1, "set it to noeviction");
    let certificates = Certificates::new();
    let server = Server::start_tls(&certificates, &[]).await;
    check(&server.url().replace("rediss", "redis"), &[], 1, "write rediss://");
    check(&server.url(), &[], 1, "--store-ca-file");
    let server = Server::start(&[]).await;
    check(&server.url().replace("redis", "rediss"), &[], 1, "does not speak TLS");
    check("redis://127.0.0.1:1", &[], 1, "is not reachable");
    check("memory", &[], 64, "--store");
    check("radish://x", &[], 64, "--store");
    check(&server.url(), &["--store-namespace", "a b"], 64, "--store-namespace");
    drop(site.pod(&server.url(), &[]).await);
    fs::write(site.folder.path().join("other"), [8; 32]).expect("a key");
    let other = Site::new();
    fs::write(other.folder.path().join("key"), [8; 32]).expect("a key");
    let (code, said) = other.store(&["check"], &server.url(), &[]);
    assert!(
        code == 1 && said.contains("give the key file that the other sidecars have"),
        "{said}"
    );
    server.ask(&["hset", "ss1:{main}:n", "p", "64"]);
    check(&server.url(), &[], 1, "it has 64 buckets and this address makes 16");
    server.ask(&["hset", "ss1:{main}:n", "p", "16", "format", "9"]);
    check(&server.url(), &[], 1, "it has format 9 and this version reads 1 to 2");
}

/// A sidecar that does not belong to the namespace does not start; one that finds it out later answers nobody, and says why.
#[tokio::test]
async fn a_sidecar_with_another_key_stays_outside() {
    let server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let (site, other) = (Site::new(), Site::new());
    fs::write(other.folder.path().join("key"), [8; 32]).expect("a key");
    let ours = site.pod(&server.url(), &[]).await;
    let client = &mut ours.client().await;
    let alice = begin(client, "alice", "default").await;
    let refused = program()
        .env_clear()
        .arg("serve")
        .args(other.store_args(&server.url()))
        .args(["--listen", "tcp://127.0.0.1:0", "--admin-listen", "off"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refused.status.code() == Some(64) && said.contains("belongs to another key"),
        "{said}"
    );
    server.kill();
    let stranger = other.start(&server.url(), &[]).await;
    server.restart().await;
    wait_for("it says why", || {
        stranger.log().contains("belongs to another key").then_some(())
    })
    .await;
    let refused = stranger
        .client()
        .await
        .create(v1::CreateRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    ours.answers().await;
    assert_eq!(state_of(client, &alice).await, v1::SessionState::Active);
}

#[tokio::test]
async fn a_cluster_that_is_fit() {
    let (cluster, site) = (Cluster::start(3, 0).await, Site::new());
    let (code, said) = site.store(&["check"], &cluster.url(), &[]);
    assert!(code == 0 && said.contains("with 64 buckets"), "{said}");
    assert_eq!(said.matches("  server ").count(), 3, "{said}");
    assert!(said.matches("maxmemory-policy").count() >= 2, "{said}");
    for node in &cluster.nodes {
        assert_eq!(node.ask(&["--scan"]), "", "it leaves nothing behind");
    }
    let pod = site.pod(&cluster.url(), &[]).await;
    let mut client = pod.client().await;
    let alice = begin(&mut client, "alice", "default").await;
    let (code, said) = site.store(&["inspect"], &cluster.url(), &[]);
    assert!(
        code == 0 && said.contains("64 buckets") && said.contains("1 live sessions"),
        "{said}"
    );
    let (_, said) = site.store(&["inspect", "--session", &alice], &cluster.url(), &[]);
    assert!(said.contains("live, version 1"), "{said}");
}
