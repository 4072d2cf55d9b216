//! Envoy's `ext_authz`: the door's question (`door::Door::judge`), asked and answered over gRPC.

use std::sync::Arc;

use tonic::{
    Code, Request, Response, Status,
    codegen::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};

use super::{
    CallError, Called, VerbGroup,
    meter::{Method, RpcMeter},
    proto::envoy::{
        self as v3, attribute_context::HttpRequest, authorization_server::Authorization, check_response::HttpResponse,
        header_value_option::HeaderAppendAction,
    },
    service::{allow, open, own_tenant},
    write::Writer,
};
use crate::{
    door::{Asked, Door, Doors, EXPIRES_IN, FROM_HERE, Passes, Refused, STATE, Says, Verdict, without_port},
    sessions::Sessions,
};

/// The service over one door.
pub(super) struct ExtAuthz {
    doors: Doors,
    writer: Writer,
    meter: Arc<RpcMeter>,
}

impl ExtAuthz {
    pub(super) fn new(doors: Doors, sessions: &Arc<Sessions>, meter: Arc<RpcMeter>) -> Self {
        Self {
            doors,
            writer: Writer::new(sessions),
            meter,
        }
    }

    async fn ask(&self, request: Request<v3::CheckRequest>) -> Called<v3::CheckResponse> {
        let (caller, request) = open(request)?;
        let door = self.doors.now();
        allow(&caller, VerbGroup::Use)?;
        if door.starts_sessions() {
            allow(&caller, VerbGroup::Issue)?;
        }
        own_tenant(&caller, "[door] tenant", door.tenant())?;
        let attributes = request.attributes.unwrap_or_default();
        let Some(http) = attributes.request.and_then(|request| request.http) else {
            let problem = "is required: the HTTP request that wants to go on";
            return Err(CallError::invalid("attributes.request.http", problem));
        };
        let says = |key: &str| attributes.context_extensions.get(key).map(String::as_str);
        let asked = Asked {
            method: &http.method,
            host: without_port(&http.host),
            target: &http.path,
            headers: &looked_at(&door, &http),
            route: Says {
                public: one_of("public", says("public"), [("true", true), ("false", false)])?,
                passive: one_of("passive", says("passive"), [("true", true), ("false", false)])?,
                policy: says("policy"),
                redirects: one_of("deny", says("deny"), [("redirect", true), ("status", false)])?.unwrap_or(true),
            },
        };
        let verdict = door.judge(&asked).await;
        door.count("ext_authz", verdict.code());
        match verdict {
            Verdict::Passes(passes) => Ok(passed(passes, names(&http))),
            Verdict::Refused(refused) => Ok(denied(refused)),
            Verdict::Unsure(error) => Err(error.into()),
        }
    }
}

#[tonic::async_trait]
impl Authorization for ExtAuthz {
    async fn check(&self, request: Request<v3::CheckRequest>) -> Result<Response<v3::CheckResponse>, Status> {
        let answer = self.ask(request).await.map_err(|error| error.into_status(&self.writer));
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        self.meter.count(Method::ExtAuthz, code);
        answer.map(Response::new)
    }
}

/// What a key of the route's configuration says.
fn one_of(key: &str, said: Option<&str>, words: [(&str, bool); 2]) -> Called<Option<bool>> {
    let Some(said) = said else { return Ok(None) };
    match words.iter().find(|(word, _)| *word == said) {
        Some((_, meant)) => Ok(Some(*meant)),
        None => Err(CallError::invalid(
            format!("attributes.context_extensions.{key}"),
            format!("must be \"{}\" or \"{}\"", words[0].0, words[1].0),
        )),
    }
}

fn pairs(http: &HttpRequest) -> impl Iterator<Item = (&str, &[u8])> {
    let joined = http.headers.iter();
    let joined = joined.map(|(name, value)| (name.as_str(), value.as_bytes()));
    let raw = http.header_map.iter().flat_map(|map| &map.headers);
    joined.chain(raw.map(|header| {
        let value = header.value.as_bytes();
        let raw = &*header.raw_value;
        (header.key.as_str(), if raw.is_empty() { value } else { raw })
    }))
}

fn names(http: &HttpRequest) -> impl Iterator<Item = &str> {
    pairs(http).map(|(name, _)| name)
}

/// The headers on which it depends what becomes of the request.
fn looked_at(door: &Door, http: &HttpRequest) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    for (name, value) in pairs(http).filter(|(name, _)| door.looks_at(name)) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// Whether the application could take a header for one of the sidecar's that is spelt otherwise: some take `_` for `-`.
fn looks_like_ours(name: &str) -> bool {
    FROM_HERE.iter().any(|ours| {
        let same = |(byte, ours): (u8, u8)| byte == ours || (byte == b'_' && ours == b'-');
        name != ours.as_str() && name.len() == ours.as_str().len() && name.bytes().zip(ours.as_str().bytes()).all(same)
    })
}

fn passed<'a>(passes: Passes, sent: impl Iterator<Item = &'a str>) -> v3::CheckResponse {
    let told = passes.told();
    let is_told = |name: &str| told.iter().any(|(told, _)| told == name);
    // What a client may have written there itself is gone.
    let ours = FROM_HERE.iter().map(HeaderName::as_str);
    let spoofed = sent.filter(|name| looks_like_ours(name));
    let mut headers_to_remove: Vec<_> = ours
        .chain(spoofed)
        .filter(|name| !is_told(name))
        .map(str::to_owned)
        .collect();
    let mut headers: Vec<_> = told.iter().map(|(name, value)| option(name, value)).collect();
    let for_browsers = told.iter().filter(|(name, _)| *name == STATE || *name == EXPIRES_IN);
    let mut response_headers_to_add: Vec<_> = for_browsers.map(|(name, value)| option(name, value)).collect();
    response_headers_to_add.extend(passes.take_back.as_ref().map(taken_back));
    if passes.other_cookies {
        match HeaderValue::from_bytes(&passes.cookies) {
            Ok(cookies) if !cookies.is_empty() => headers.push(option(&header::COOKIE, &cookies)),
            _ => headers_to_remove.push(header::COOKIE.as_str().to_owned()),
        }
    }
    v3::CheckResponse {
        status: Some(v3::Status { code: Code::Ok.into() }),
        http_response: Some(HttpResponse::OkResponse(v3::OkHttpResponse {
            headers,
            headers_to_remove,
            response_headers_to_add,
        })),
    }
}

fn denied(refused: Refused) -> v3::CheckResponse {
    let (parts, body) = refused.into_inner().into_parts();
    let code = match parts.status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        _ => Code::PermissionDenied,
    };
    v3::CheckResponse {
        status: Some(v3::Status { code: code.into() }),
        http_response: Some(HttpResponse::DeniedResponse(v3::DeniedHttpResponse {
            status: Some(v3::HttpStatus {
                code: parts.status.as_u16().into(),
            }),
            headers: parts.headers.iter().map(|(name, value)| option(name, value)).collect(),
            body: String::from_utf8(body).unwrap_or_default(),
        })),
    }
}

/// Has the browser forget a cookie, unless the application's answer sets cookies: it may be this very one, and ours comes last.
fn taken_back(value: &HeaderValue) -> v3::HeaderValueOption {
    v3::HeaderValueOption {
        append_action: HeaderAppendAction::AddIfAbsent.into(),
        ..option(&header::SET_COOKIE, value)
    }
}

/// A header to set.
fn option(name: &HeaderName, value: &HeaderValue) -> v3::HeaderValueOption {
    let text = value.to_str().map(str::to_owned);
    let raw = if text.is_err() {
        value.as_bytes().to_vec()
    } else {
        Vec::new()
    };
    v3::HeaderValueOption {
        header: Some(v3::HeaderValue {
            key: name.as_str().to_owned(),
            value: text.unwrap_or_default(),
            raw_value: raw,
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}
