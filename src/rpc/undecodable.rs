//! A request that cannot be decoded is the caller's fault, and is told so: tonic calls it INTERNAL.

use percent_encoding::percent_decode;
use tonic::{
    Code, Status,
    codegen::http::{HeaderMap, Response},
};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What prost's error begins with.
const UNDECODABLE: &str = "failed to decode Protobuf message: ";

/// Turns the answer to a request that could not be decoded into INVALID_ARGUMENT that names the field.
pub(super) fn blame_the_caller<B>(mut response: Response<B>) -> Response<B> {
    if let Some(status) = blamed(response.headers()) {
        // The details of the one that it was are none.
        let _ = status.add_header(response.headers_mut());
    }
    response
}

fn blamed(headers: &HeaderMap) -> Option<Status> {
    // Only an error without an answer has its status in the headers.
    let code = headers.get(Status::GRPC_STATUS)?;
    if code.as_bytes() != b"13" {
        return None;
    }
    let message = percent_decode(headers.get(Status::GRPC_MESSAGE)?.as_bytes())
        .decode_utf8()
        .ok()?;
    let (field, problem) = split(message.strip_prefix(UNDECODABLE)?);
    if field.is_empty() {
        let message = format!("the request is no message of this method: {problem}");
        return Some(Status::new(Code::InvalidArgument, message));
    }
    let details = ErrorDetails::with_bad_request_violation(&field, problem);
    let message = format!("{field}: {problem}");
    Some(Status::with_error_details(Code::InvalidArgument, message, details))
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
