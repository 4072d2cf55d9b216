//! A watch as a stream of messages.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use tonic::{Code, Status};

use super::{
    CallError,
    meter::{Method, RpcMeter},
    proto::v1::{self, watch_expiry_response::Message},
    write::Writer,
};
use crate::{
    sessions::{Scope, Watch, WatchContent, WatchMessage},
    state::SessionRef,
};

/// The stream of one watcher.
pub(super) type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchExpiryResponse, Status>> + Send>>;

/// Streams a watch until it ends.
pub(super) fn stream(mut watch: Watch, writer: Writer, meter: Arc<RpcMeter>) -> WatchStream {
    Box::pin(async_stream::stream! {
        let mut ending = Ending { meter, code: Code::Cancelled };
        while let Some(next) = watch.next().await {
            match next {
                Ok(message) => yield Ok(write(&writer, &watch.subscriber().scope, message)),
                Err(error) => {
                    let status = CallError::from(error).into_status(&writer);
                    ending.code = status.code();
                    yield Err(status);
                    return;
                }
            }
        }
        ending.code = Code::Ok;
    })
}

/// Counts the call when the stream is dropped, by whomever.
struct Ending {
    meter: Arc<RpcMeter>,
    code: Code,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.meter.count(Method::WatchExpiry, self.code);
    }
}

fn write(writer: &Writer, scope: &Scope, message: WatchMessage) -> v1::WatchExpiryResponse {
    let content = match message.content {
        WatchContent::Snapshot(report) => {
            Message::Snapshot(writer.snapshot(own_id(scope, report.status.reference), &report))
        }
        WatchContent::SnapshotEnd(snapshot_count) => Message::SnapshotEnd(v1::SnapshotEnd { snapshot_count }),
        WatchContent::Event(event) => writer.event(own_id(scope, event.session), &event),
        WatchContent::Heartbeat => Message::Heartbeat(v1::Heartbeat {}),
        WatchContent::Draining => Message::Draining(v1::Draining {}),
    };
    v1::WatchExpiryResponse {
        resume_token: message.resume_token,
        emit_time: Some(writer.timestamp(message.at)),
        message: Some(content),
    }
}

/// The id that this caller named a session by.
fn own_id(scope: &Scope, session: SessionRef) -> Option<&String> {
    match scope {
        Scope::Sessions(_, names) => names.get(&session)?.as_ref(),
        _ => None,
    }
}
