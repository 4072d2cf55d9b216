//! The pages that are open: each has a stream, which holds PRESENCE for it until the page is left or the stream is closed.

use std::{collections::HashMap, sync::Arc};

use axum::http::Uri;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::state::SessionRef;

/// How many streams one session may have: pages of one browser share one, so that each is another browser, or one without the means to.
pub(super) const MOST_STREAMS: usize = 16;

const LONGEST: usize = 40;

/// What stands before the ids of PRESENCE holds.
const TABS: &str = "tab.";

/// The open pages, by session.
#[derive(Default)]
pub(super) struct Pages(Mutex<HashMap<SessionRef, Vec<Open>>>);

struct Open {
    hold: String,
    /// Cancelled when the page is left.
    left: CancellationToken,
}

/// An open page. It is closed when this is dropped.
pub(super) struct Page {
    pages: Arc<Pages>,
    session: SessionRef,
    pub(super) hold: String,
    pub(super) left: CancellationToken,
}

impl Pages {
    /// Opens a page; `None` if the session has too many.
    pub(super) fn open(self: &Arc<Self>, session: SessionRef, hold: String) -> Option<Page> {
        let mut all = self.0.lock();
        let pages = all.entry(session).or_default();
        if pages.len() >= MOST_STREAMS {
            return None;
        }
        let left = CancellationToken::new();
        pages.push(Open {
            hold: hold.clone(),
            left: left.clone(),
        });
        Some(Page {
            pages: Arc::clone(self),
            session,
            hold,
            left,
        })
    }

    /// A page is left: its stream, if it is still open, holds PRESENCE no longer. Answers whether another one is open.
    pub(super) fn leave(&self, session: SessionRef, hold: &str) -> bool {
        let all = self.0.lock();
        let pages = all.get(&session).map_or(&[][..], Vec::as_slice);
        for page in pages.iter().filter(|page| page.hold == hold) {
            page.left.cancel();
        }
        pages.iter().any(|page| !page.left.is_cancelled())
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // So that it is known again by its own mark.
        self.left.cancel();
        let mut all = self.pages.0.lock();
        let Some(pages) = all.get_mut(&self.session) else {
            return;
        };
        let own = pages
            .iter()
            .position(|page| page.hold == self.hold && page.left.is_cancelled());
        if let Some(own) = own {
            pages.swap_remove(own);
        }
        if pages.is_empty() {
            all.remove(&self.session);
        }
    }
}

/// The PRESENCE hold of the page that a request comes from: `?page=`, its own id, if it says one.
pub(super) fn page_of(uri: &Uri) -> Result<String, &'static str> {
    let pairs = uri.query().unwrap_or("").split('&');
    let page = pairs
        .filter_map(|pair| pair.strip_prefix("page="))
        .next()
        .unwrap_or("one");
    if !is_plain(page) {
        return Err("page must be 1 to 40 characters of A-Z, a-z, 0-9, _ and -: the page's own id");
    }
    Ok(format!("{TABS}{page}"))
}

/// Whether it is 1 to 40 characters that need no quoting anywhere.
pub(super) fn is_plain(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=LONGEST).contains(&id.len()) && id.bytes().all(plain)
}
