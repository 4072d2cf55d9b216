//! The HTTP door: what a page may ask about its own session, and who may not. In virtual time, without sockets.

mod authz;
mod envoy;
mod page;
mod start;
mod strangers;
mod stream;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
};
use serde_json::Value;
use session_sidecar::config::parse_door;
use tower::ServiceExt as _;

use crate::support::*;

const DOOR: &str = r#"
[policy.default]
idle_timeout = "15m"
absolute_timeout = "12h"
warn_before = ["2m", "60s"]
presence = { leave_grace = "30s", lost_grace = "5m" }

[door]
cookies = ["sid", { name = "__Host-other", path = "/" }, { name = "wide", path = "/app", domain = "shop.example" }]
origins = ["https://app.example"]
login_url = "/login"

[[door.routes]]
path = "/static/**"
public = true

[[door.routes]]
path = "/poll"
passive = true
"#;

/// A sidecar and its door.
struct Site {
    sidecar: Sidecar,
    door: Router,
    client: Client,
}

/// What the door answered.
struct Told {
    code: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Site {
    async fn new() -> Self {
        Self::with(DOOR).await
    }

    async fn with(file: &'static str) -> Self {
        let sidecar = Sidecar::with_policies(file);
        let door = sidecar.doors.clone().routes();
        let client = sidecar.client().await;
        Self { sidecar, door, client }
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> axum::response::Response {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "shop.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        self.door.clone().oneshot(request).await.expect("infallible")
    }

    async fn ask(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Told {
        let response = self.send(method, target, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.expect("a body");
        Told {
            code: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    /// The state of a session as its page sees it.
    async fn show(&self, name: &str) -> Value {
        let told = self
            .ask(Method::GET, "/session", &[("cookie", &cookie(name))], "")
            .await;
        assert_eq!(told.code, StatusCode::OK);
        told.body
    }

    /// What a script of the site sends.
    async fn post(&self, name: &str, target: &str, body: &str) -> Told {
        let headers = [
            ("cookie", cookie(name)),
            ("origin", "https://shop.example".to_owned()),
            ("x-session-sidecar", "1".to_owned()),
        ];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        self.ask(Method::POST, target, &headers, body).await
    }
}

fn cookie(name: &str) -> String {
    format!("theme=dark; sid={}", id(name))
}

fn header(told: &Told, name: &str) -> String {
    let value = told.headers.get(name).map(|value| value.to_str().expect("text"));
    value.unwrap_or_default().to_owned()
}
