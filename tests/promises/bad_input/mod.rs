//! Every bad input gets an error that names the field and the limit, changes nothing, and leaves the server answering.

mod basic;
mod holds;
mod rotate;

use crate::support::*;
use session_sidecar::rpc::proto::v1;
use tonic::{Code, Status};

/// A client and a session that must be as it was after each bad input.
struct Bench {
    _sidecar: Sidecar,
    client: Client,
    before: v1::Session,
}

impl Bench {
    async fn set_up() -> Self {
        let sidecar = Sidecar::with_policies("[policy.default]\npresence = \"on\"");
        let mut client = sidecar.client().await;
        create(&mut client, "alice").await;
        let before = check(&mut client, "alice").await;
        Self {
            _sidecar: sidecar,
            client,
            before,
        }
    }

    /// The refusal names the field, and nothing has changed.
    async fn refuses(&mut self, what: &str, named: &str, result: Result<(), Status>) -> Status {
        let status = result.expect_err(what);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        assert_eq!(field(&status), named, "{what}");
        assert!(status.message().contains(named), "{what}: {}", status.message());
        assert_eq!(check(&mut self.client, "alice").await, self.before, "{what}");
        status
    }

    /// The refusal names the limit too.
    async fn refuses_over(&mut self, what: &str, named: &str, limit: &str, result: Result<(), Status>) {
        let status = self.refuses(what, named, result).await;
        assert!(status.message().contains(limit), "{what}: {}", status.message());
    }

    async fn touch(&mut self, change: impl FnOnce(&mut v1::TouchRequest)) -> Result<(), Status> {
        touch_with(&mut self.client, "alice", change).await.map(drop)
    }

    async fn create(&mut self, change: impl FnOnce(&mut v1::CreateRequest)) -> Result<(), Status> {
        let mut request = v1::CreateRequest {
            session_id: id("bob"),
            ..Default::default()
        };
        change(&mut request);
        self.client.create(request).await.map(drop)
    }

    async fn hold(&mut self, change: impl FnOnce(&mut v1::HoldRequest)) -> Result<(), Status> {
        let mut request = v1::HoldRequest {
            session_id: id("alice"),
            hold_id: "work".to_owned(),
            kind: v1::HoldKind::Work.into(),
            ttl: wire(secs(60)),
            ..Default::default()
        };
        change(&mut request);
        self.client.hold(request).await.map(drop)
    }

    async fn release(&mut self, change: impl FnOnce(&mut v1::ReleaseRequest)) -> Result<(), Status> {
        let mut request = v1::ReleaseRequest {
            session_id: id("alice"),
            hold_id: "work".to_owned(),
            ..Default::default()
        };
        change(&mut request);
        self.client.release(request).await.map(drop)
    }

    async fn rotate(&mut self, change: impl FnOnce(&mut v1::RotateRequest)) -> Result<(), Status> {
        let mut request = v1::RotateRequest {
            session_id: id("alice"),
            ..Default::default()
        };
        change(&mut request);
        self.client.rotate(request).await.map(drop)
    }

    async fn extend(&mut self, change: impl FnOnce(&mut v1::ExtendRequest)) -> Result<(), Status> {
        let mut request = v1::ExtendRequest {
            session_id: id("alice"),
            ..Default::default()
        };
        change(&mut request);
        self.client.extend(request).await.map(drop)
    }

    async fn end(&mut self, change: impl FnOnce(&mut v1::EndRequest)) -> Result<(), Status> {
        let mut request = v1::EndRequest {
            session_id: id("alice"),
            ..Default::default()
        };
        change(&mut request);
        self.client.end(request).await.map(drop)
    }

    async fn hinted(&mut self, change: impl FnOnce(&mut v1::TouchHints)) -> Result<(), Status> {
        touch_hinted(&mut self.client, "alice", change).await.map(drop)
    }

    async fn watch(&mut self, change: impl FnOnce(&mut v1::WatchExpiryRequest)) -> Result<(), Status> {
        let mut request = everything();
        change(&mut request);
        self.client.watch_expiry(request).await.map(drop)
    }
}
