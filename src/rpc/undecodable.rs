//! A request that cannot be read is the caller's fault, and is told so: tonic says INTERNAL, or OUT_OF_RANGE.

use std::collections::HashMap;

use percent_encoding::percent_decode;
use tonic::{Code, Status, codegen::http::HeaderMap};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::error::{DOMAIN, RETRY_AFTER};
use crate::net::{NO_ROOM, TOO_SLOW};

/// What tonic says of a body that is no message: each is a part of it, and what we say in its place.
const NO_MESSAGE: [(&str, &str); 3] = [
    ("Missing request message.", "there is none"),
    ("Unexpected EOF decoding stream.", "it is cut off"),
    (
        "protocol error: received message with invalid compression flag",
        "its first byte, which says whether it is compressed, is neither 0 nor 1",
    ),
];

/// What prost's error begins with.
pub(super) const UNDECODABLE: &str = "failed to decode Protobuf message: ";

/// What tonic says of those that are compressed, which is right as it is.
const COMPRESSED: [&str; 2] = [
    "Content is compressed with ",
    "protocol error: received message with compressed-flag but no grpc-encoding was specified",
];

/// What tonic's begins with.
const TOO_LARGE: &str = "Error, decoded message length too large: ";

/// What to answer to a request that could not be read, by the headers of tonic's answer: INVALID_ARGUMENT that names the field,
/// RESOURCE_EXHAUSTED if it is too large.
pub(super) fn blamed(headers: &HeaderMap) -> Option<Status> {
    // Only an error without an answer has its status in the headers.
    let code = Code::from_bytes(headers.get(Status::GRPC_STATUS)?.as_bytes());
    if !matches!(
        code,
        Code::Internal | Code::OutOfRange | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Unimplemented
    ) {
        return None;
    }
    let message = percent_decode(headers.get(Status::GRPC_MESSAGE)?.as_bytes())
        .decode_utf8()
        .ok()?;
    match code {
        _ if COMPRESSED.iter().any(|told| message.starts_with(told)) => Some(Status::new(code, message)),
        Code::OutOfRange if message.starts_with(TOO_LARGE) => {
            let limit: usize = message.rsplit(' ').find_map(|word| word.parse().ok())?;
            let message = format!("the request is larger than {limit} bytes: send less at once");
            let limit = [("limit".to_owned(), limit.to_string())];
            let details = ErrorDetails::with_error_info("MESSAGE_TOO_LARGE", DOMAIN, limit);
            Some(Status::with_error_details(Code::ResourceExhausted, message, details))
        }
        Code::ResourceExhausted if message == NO_ROOM => Some(busy()),
        Code::DeadlineExceeded if message == TOO_SLOW => Some(Status::deadline_exceeded(TOO_SLOW)),
        Code::Internal => {
            let no_message = NO_MESSAGE.iter().find(|(told, _)| message.starts_with(told));
            let told = no_message.map(|(_, problem)| *problem);
            told.or_else(|| message.strip_prefix(UNDECODABLE)).map(undecodable)
        }
        _ => None,
    }
}

/// There is no room for a request.
pub(super) fn busy() -> Status {
    let mut details = ErrorDetails::with_error_info("CONNECTION_BUSY", DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::ResourceExhausted, NO_ROOM, details)
}

fn undecodable(told: &str) -> Status {
    let (field, problem) = split(told);
    if field.is_empty() {
        let message = format!("the request is no message of this method: {problem}");
        return Status::new(Code::InvalidArgument, message);
    }
    let details = ErrorDetails::with_bad_request_violation(&field, problem);
    let message = format!("{field}: {problem}");
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// The path of the field and the problem in `Outer.field: Inner.field: problem`.
fn split(told: &str) -> (String, &str) {
    let mut path = Vec::new();
    let mut rest = told;
    while let Some((place, more)) = rest.split_once(": ")
        && let Some((message, field)) = place.split_once('.')
        && !message.contains(' ')
    {
        path.push(field);
        rest = more;
    }
    (path.join("."), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_field_is_found() {
        for (told, field, problem) in [
            (
                "TouchRequest.session_id: invalid string value: data is not UTF-8 encoded",
                "session_id",
                "invalid string value: data is not UTF-8 encoded",
            ),
            (
                "BatchTouchRequest.touches: TouchRequest.tenant: bad",
                "touches.tenant",
                "bad",
            ),
            ("invalid varint", "", "invalid varint"),
            ("buffer underflow: e.g. cut", "", "buffer underflow: e.g. cut"),
        ] {
            assert_eq!(split(told), (field.to_owned(), problem));
        }
    }
}
