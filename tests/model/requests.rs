//! What is remembered of requests.

use super::{Answer, Request};

/// How long an outcome is remembered.
const REMEMBERED_FOR: u64 = 600_000_000_000;

/// The requests of a session: Create's for ever, and the last ones of Extend and Rotate, eight in all.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    created: Option<Request>,
    granted: Vec<(Request, u64, Answer)>,
}

impl Requests {
    pub(crate) fn new(created: Option<Request>) -> Self {
        Self {
            created,
            granted: Vec::new(),
        }
    }

    pub(crate) fn granted(&mut self, request: Option<Request>, now: u64, answer: Answer) {
        if let Some(request) = request {
            self.granted.push((request, now, answer));
        }
    }

    /// What a request id was answered before, if it is remembered. Create's is no answer to another verb.
    pub(crate) fn recall(&self, request: Option<Request>, now: u64) -> Option<Result<Answer, Answer>> {
        let (key, content) = request?;
        if self.created.is_some_and(|(created, _)| created == key) {
            return Some(Err(Answer::RequestIdReused));
        }
        let kept = if self.created.is_some() { 7 } else { 8 };
        let mut recent = self.granted.iter().rev().take(kept);
        let known = recent.find(|((known, _), at, _)| *known == key && now.saturating_sub(*at) <= REMEMBERED_FOR);
        known.map(|((_, known), _, answer)| {
            if *known == content {
                Ok(answer.clone())
            } else {
                Err(Answer::RequestIdReused)
            }
        })
    }
}
