use session_sidecar::store::shared::link::Unfit;

use super::*;
use crate::servers::{Cluster, Sentinel, Server, free_port};

async fn check(settings: Settings) -> Unfit {
    let (sender, _pokes) = mpsc::unbounded_channel();
    let link = Link::new(settings, vec![b"c".to_vec()], sender);
    link.check().await.expect_err("it is unfit")
}

#[tokio::test]
async fn a_fit_server_tells_what_it_is() {
    let server = Server::start(&["--requirepass", "secret"]).await;
    let mut settings = settings(&server.url());
    settings.password = Some("secret".into());
    let (sender, _pokes) = mpsc::unbounded_channel();
    let servers = Link::new(settings, vec![b"c".to_vec()], sender).check().await.unwrap();
    assert_eq!(servers.len(), 1);
    assert_eq!(servers[0].run_id.len(), 40);
    assert_eq!(servers[0].replid.len(), 40);
    assert!(servers[0].version.contains(' '), "{servers:?}");
}

#[tokio::test]
async fn passwords_and_users() {
    let server = Server::start(&["--requirepass", "secret"]).await;
    assert_eq!(check(settings(&server.url())).await, Unfit::NoPassword);
    let mut wrong = settings(&server.url());
    wrong.password = Some("sesame".into());
    let unfit = check(wrong.clone()).await;
    assert_eq!(unfit, Unfit::WrongPassword);
    assert!(!unfit.is_transient() && !unfit.to_string().contains("sesame"));
    wrong.address = server.url().replace("://", "://nobody@").parse().unwrap();
    assert_eq!(check(wrong).await, Unfit::WrongPassword);
    // The link itself goes on trying, and says why.
    let mut running = link(settings(&server.url()), &[]);
    let wants = |status: &Status| matches!(status, Status::Down { why } if why.contains("--store-password-file"));
    let waited = tokio::time::timeout(PATIENCE, running.status.wait_for(wants)).await;
    assert!(waited.is_ok());
}

#[tokio::test]
async fn commands_and_channels_that_are_not_allowed() {
    let server = Server::start(&[]).await;
    for (not, told) in [("-info", "INFO"), ("-ping", "PING"), ("-ssubscribe", "SSUBSCRIBE")] {
        let allow = [
            "acl", "setuser", "app", "reset", "on", "nopass", "~*", "&*", "+@all", not,
        ];
        assert_eq!(server.ask(&allow), "OK");
        let unfit = check(settings(&server.url().replace("://", "://app@"))).await;
        assert_eq!(unfit, Unfit::NoPermission(told.into()), "{not}");
    }
    assert_eq!(
        server.ask(&["acl", "setuser", "app", "reset", "on", "nopass", "~*", "+@all"]),
        "OK"
    );
    let unfit = check(settings(&server.url().replace("://", "://app@"))).await;
    assert!(
        matches!(&unfit, Unfit::NoPermission(what) if what.contains("channels")),
        "{unfit}"
    );
}

#[tokio::test]
async fn servers_that_would_lose_sessions() {
    let evicting = Server::start(&["--maxmemory-policy", "allkeys-lru"]).await;
    let found = "allkeys-lru".to_owned();
    assert_eq!(check(settings(&evicting.url())).await, Unfit::EvictionPolicy { found });
    let primary = Server::start(&[]).await;
    let port = primary.port.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]).await;
    let unfit = check(settings(&replica.url())).await;
    assert!(
        matches!(&unfit, Unfit::Replica { .. } | Unfit::NotReady { .. }),
        "{unfit}"
    );
    assert!(unfit.is_transient());
    assert_eq!(
        check(settings(&format!("{}/99", primary.url()))).await,
        Unfit::NoDatabase(99)
    );
}

#[tokio::test]
async fn addresses_that_are_something_else() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let unfit = check(settings(&format!("redis://{nobody}"))).await;
    assert!(
        matches!(&unfit, Unfit::Unreachable { at, .. } if *at == nobody),
        "{unfit}"
    );
    assert!(unfit.is_transient());

    let server = Server::start(&[]).await;
    let at = format!("127.0.0.1:{}", server.port);
    let unfit = check(settings(&format!("redis+cluster://{at}"))).await;
    assert_eq!(unfit, Unfit::NotACluster { at: at.clone() });
    let unfit = check(settings(&format!("redis+sentinel://{at}/main"))).await;
    assert_eq!(unfit, Unfit::NotASentinel { at });

    let sentinel = Sentinel::start(&server).await;
    let at = format!("127.0.0.1:{}", sentinel.port());
    assert_eq!(
        check(settings(&format!("redis://{at}"))).await,
        Unfit::IsASentinel { at: at.clone() }
    );
    let name = "other".to_owned();
    let unfit = check(settings(&format!("redis+sentinel://{nobody},{at}/other"))).await;
    assert_eq!(unfit, Unfit::UnknownName { at, name });

    let cluster = Cluster::start(3, 0).await;
    let at = format!("127.0.0.1:{}", cluster.nodes[0].port);
    assert_eq!(
        check(settings(&format!("redis://{at}"))).await,
        Unfit::IsACluster { at }
    );
}

#[tokio::test]
async fn something_that_is_no_store() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let serve = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let unfit = check(settings(&format!("redis://{at}"))).await;
    assert!(
        matches!(&unfit, Unfit::Unreachable { why, .. } if why.contains("protocol") || why.contains("hung up")),
        "{unfit}"
    );
    serve.abort();
}
