//! A watch as a stream of messages.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, future::BoxFuture};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Status};

use super::{
    CallError,
    meter::{Method, RpcMeter},
    proto::v1::{self, watch_expiry_response::Message},
    write::Writer,
};
use crate::{
    sabotage::{self, Fault},
    sessions::{Scope, Watch, WatchContent, WatchMessage},
    state::SessionRef,
};

/// The stream of one watcher.
pub(super) type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchExpiryResponse, Status>> + Send>>;

/// How long a message may wait until its watcher takes it.
const UNREAD: Duration = Duration::from_secs(10);

/// How long it may wait when more has happened meanwhile than is kept for the watcher: one that reads takes it sooner.
const UNREAD_OVERRUN: Duration = Duration::from_secs(1);

/// How many messages may wait in the stream; those that follow wait in the mailbox.
const IN_STREAM: usize = 64;

type Item = Box<Result<v1::WatchExpiryResponse, Status>>;

/// Streams a watch until it ends. A task of its own takes the messages out of the watch: hyper does not poll a stream whose
/// client gives it no window, so a watcher that never reads could not be cut off from within the stream (G13). So is one whose
/// rights are `withdrawn`.
pub(super) fn stream(
    watch: Watch,
    withdrawn: impl Future<Output = CallError> + Send + 'static,
    writer: Writer,
    meter: Arc<RpcMeter>,
) -> WatchStream {
    // One place more is kept for the last words.
    let (messages, stream) = mpsc::channel(IN_STREAM + 1);
    tokio::spawn(pump(watch, Box::pin(withdrawn), writer, meter, messages));
    Box::pin(ReceiverStream::new(stream).map(|item: Item| *item))
}

async fn pump(
    mut watch: Watch,
    mut withdrawn: BoxFuture<'static, CallError>,
    writer: Writer,
    meter: Arc<RpcMeter>,
    messages: mpsc::Sender<Item>,
) {
    let mut ending = Ending {
        meter,
        code: Code::Cancelled,
    };
    let Ok(last_words) = messages.clone().reserve_owned().await else {
        return;
    };
    let error: CallError = loop {
        let next = tokio::select! {
            biased;
            () = messages.closed() => return,
            error = &mut withdrawn => break error,
            next = watch.next() => next,
        };
        let message = match next {
            None => {
                ending.code = Code::Ok;
                return;
            }
            Some(Err(error)) => break error.into(),
            Some(Ok(message)) => Box::new(Ok(write(&writer, &watch.subscriber().scope, message))),
        };
        tokio::select! {
            biased;
            sent = messages.send(message) => if sent.is_err() { return },
            () = unread(&watch), if !sabotage::on(Fault::SlowReaderKept) => break watch.cut_off().into(),
        }
    };
    let status = error.into_status(&writer);
    ending.code = status.code();
    last_words.send(Box::new(Err(status)));
}

/// Waits until a message has waited for too long. A burst that the watcher reads, however large, is no reason to cut it off.
async fn unread(watch: &Watch) {
    let overrun = async {
        watch.overrun().await;
        tokio::time::sleep(UNREAD_OVERRUN).await;
    };
    tokio::select! {
        () = overrun => {}
        () = tokio::time::sleep(UNREAD) => {}
    }
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
