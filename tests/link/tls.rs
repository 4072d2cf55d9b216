use session_sidecar::store::shared::link::Unfit;

use super::*;
use crate::servers::{Certificates, Server};

async fn check(settings: &Settings) -> Result<(), Unfit> {
    let (sender, _pokes) = mpsc::unbounded_channel();
    Link::new(settings.clone(), Vec::new(), sender)
        .check()
        .await
        .map(|_| ())
}

#[tokio::test]
async fn over_tls() {
    let certificates = Certificates::new();
    let server = Server::start_tls(&certificates, &[]).await;
    let mut settings = settings(&server.url());
    let at = format!("127.0.0.1:{}", server.port);

    settings.ca = Some(certificates.authority());
    assert_eq!(check(&settings).await, Ok(()));
    let mut running = link(settings.clone(), &["c"]);
    running.up().await;
    assert_eq!(running.answer(|| call(&COUNT, "k", "")).await, Ok(Value::Int(1)));
    running.heard_on("c").await;

    settings.ca = Some(Certificates::new().authority());
    let unfit = check(&settings).await.unwrap_err();
    assert!(matches!(&unfit, Unfit::Certificate { .. }), "{unfit}");
    settings.ca = Some(b"certificate".to_vec());
    let unfit = check(&settings).await.unwrap_err();
    assert!(matches!(&unfit, Unfit::NoAuthority(_)), "{unfit}");
    settings.ca = None;
    let unfit = check(&settings).await.unwrap_err();
    assert!(
        matches!(&unfit, Unfit::Certificate { .. } | Unfit::NoAuthority(_)),
        "{unfit}"
    );

    settings.address = format!("redis://{at}").parse().unwrap();
    assert_eq!(check(&settings).await, Err(Unfit::PlainAgainstTls { at }));
}

#[tokio::test]
async fn tls_where_nobody_speaks_it() {
    let server = Server::start(&[]).await;
    let at = format!("127.0.0.1:{}", server.port);
    let mut settings = settings(&format!("rediss://{at}"));
    settings.ca = Some(Certificates::new().authority());
    assert_eq!(check(&settings).await, Err(Unfit::TlsAgainstPlain { at }));
}

#[tokio::test]
async fn a_server_that_wants_a_certificate() {
    let certificates = Certificates::new();
    let server = Server::start_tls(&certificates, &["--tls-auth-clients", "yes"]).await;
    let mut settings = settings(&server.url());
    settings.ca = Some(certificates.authority());
    let at = format!("127.0.0.1:{}", server.port);
    assert_eq!(check(&settings).await, Err(Unfit::WantsCertificate { at }));
}
