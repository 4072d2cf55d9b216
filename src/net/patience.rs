//! Patience with requests that do not come at once: each has its time, and those of a connection share a room.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{BoxError, body::Bytes};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// How long a request's body may take.
const SLOWEST_BODY: Duration = Duration::from_secs(10);

/// What is said of a request that took longer.
pub(crate) const TOO_SLOW: &str = "the request did not come whole within 10 s";

/// How much of the requests of one connection, with their headers, may have come while they have not come whole: sixteen of the largest.
const ROOM: usize = 16 << 20;

/// What a request of several messages takes, which nobody limits in time: those who do not read the answers fill as much.
const OF_MANY: usize = 256 << 10;

/// What needs no room of each: small requests are not refused for large ones.
const FREE: usize = 1024;

/// How long one of several messages may take. Who asks by hand thinks between two.
const SLOWEST_OF_MANY: Duration = Duration::from_secs(60);

/// What is said of a request that has no room.
pub(crate) const NO_ROOM: &str = "more than 16 MiB of this connection's requests have come, and none of them whole, where a stream of \
                                  reflection counts as 256 KiB: send fewer large ones at once";

/// Room for what has come of a connection's requests that have not come whole.
#[derive(Default)]
pub(crate) struct Room(AtomicUsize);

/// A share of it, which is given back when this is dropped.
struct Share {
    room: Arc<Room>,
    taken: usize,
}

impl Share {
    /// Makes it as large as what has come needs. Whether there was room for that.
    fn grow(&mut self, come: usize) -> bool {
        let more = come.saturating_sub(FREE).saturating_sub(self.taken);
        self.taken += more;
        more == 0 || self.room.0.fetch_add(more, Ordering::Relaxed) + more <= ROOM
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

/// A request's body that must have come whole some time after it was first waited for.
pub(crate) struct Patient<B> {
    body: B,
    refusal: fn(&'static str) -> BoxError,
    is_of_many: bool,
    share: Option<Share>,
    /// How much has come.
    come: usize,
    /// Most requests come whole, and are not waited for.
    waited: bool,
    patience: Option<Pin<Box<Sleep>>>,
}

impl<B> Patient<B> {
    /// A body that fails with what `refusal` makes of [`TOO_SLOW`] or [`NO_ROOM`].
    pub(crate) fn new(body: B, refusal: fn(&'static str) -> BoxError) -> Self {
        Self {
            body,
            refusal,
            is_of_many: false,
            share: None,
            come: 0,
            waited: false,
            patience: None,
        }
    }

    /// The same for one of several small messages, each of which has its time; nothing if there is no room for it.
    pub(crate) fn of_many(mut self) -> Option<Self> {
        self.is_of_many = true;
        self.come += OF_MANY;
        let has_room = self.share.as_mut().is_none_or(|share| share.grow(self.come));
        has_room.then_some(self)
    }

    /// The same for one that, while it is waited for, shares room with others. So much of it has come, beside the body.
    pub(crate) fn in_room(self, room: Arc<Room>, come: usize) -> Self {
        let share = Some(Share { room, taken: 0 });
        Self {
            share,
            come: self.come + come,
            ..self
        }
    }
}

impl<B> http_body::Body for Patient<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if this.is_of_many {
                this.patience = None;
            } else {
                this.come += frame.data_ref().map_or(0, Bytes::len);
            }
        }
        this.waited |= polled.is_pending();
        if this.waited
            && !this.body.is_end_stream()
            && let Some(share) = &mut this.share
            && !share.grow(this.come)
        {
            return Poll::Ready(Some(Err((this.refusal)(NO_ROOM))));
        }
        if let Poll::Ready(frame) = polled {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let slowest = if this.is_of_many { SLOWEST_OF_MANY } else { SLOWEST_BODY };
        let patience = this.patience.get_or_insert_with(|| Box::pin(sleep(slowest)));
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Some(Err((this.refusal)(TOO_SLOW))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use axum::body::Body;
    use futures_util::StreamExt as _;
    use http_body::Body as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_whole_ends_in_time() {
        let (more, pieces) = tokio::sync::mpsc::channel::<Result<Bytes, BoxError>>(1);
        let pieces = tokio_stream::wrappers::ReceiverStream::new(pieces);
        let mut body = Patient::new(Body::from_stream(pieces), BoxError::from);
        // A byte now and then does not help.
        tokio::spawn(async move {
            while more.send(Ok(Bytes::from_static(b"x"))).await.is_ok() {
                sleep(Duration::from_secs(3)).await;
            }
        });
        let began = Instant::now();
        let error = loop {
            if let Err(error) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))
                .await
                .expect("it goes on")
            {
                break error;
            }
        };
        assert_eq!(error.to_string(), TOO_SLOW);
        assert_eq!(began.elapsed(), SLOWEST_BODY);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_are_waited_for_share_a_room() {
        let room = Arc::new(Room::default());
        let body = |pieces: Vec<Bytes>, whole: bool| {
            let pieces = tokio_stream::iter(pieces.into_iter().map(Ok::<_, BoxError>));
            let rest = futures_util::stream::once(async move {
                if whole {
                    Ok(Bytes::new())
                } else {
                    std::future::pending().await
                }
            });
            Patient::new(Body::from_stream(pieces.chain(rest)), BoxError::from).in_room(Arc::clone(&room), FREE)
        };
        let mebibyte = || Bytes::from(vec![0; 1 << 20]);
        let poll =
            async |body: &mut Patient<Body>| poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await;

        // What comes at once takes none.
        for _ in 0..100 {
            let mut whole = body(vec![mebibyte()], true);
            assert!(matches!(poll(&mut whole).await, Poll::Ready(Some(Ok(_)))));
            assert!(matches!(poll(&mut whole).await, Poll::Ready(Some(Ok(_)))));
        }
        let mut waiting = Vec::new();
        for _ in 0..16 {
            let mut unfinished = body(vec![mebibyte()], false);
            assert!(matches!(poll(&mut unfinished).await, Poll::Ready(Some(Ok(_)))));
            assert!(poll(&mut unfinished).await.is_pending(), "there is room");
            waiting.push(unfinished);
        }
        let mut one_more = body(vec![Bytes::from_static(b"x")], false);
        assert!(matches!(poll(&mut one_more).await, Poll::Ready(Some(Ok(_)))));
        let Poll::Ready(Some(Err(refused))) = poll(&mut one_more).await else {
            panic!("there is no room");
        };
        assert_eq!(refused.to_string(), NO_ROOM);

        drop((one_more, waiting.pop()));
        let mut again = body(vec![Bytes::from_static(b"x")], false);
        assert!(matches!(poll(&mut again).await, Poll::Ready(Some(Ok(_)))));
        assert!(poll(&mut again).await.is_pending(), "what was given up takes none");
    }
}
