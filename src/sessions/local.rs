//! While the shared store is away: sessions that were known to live are served for a while, from what is known here.

use std::{sync::Arc, time::Duration};

use super::{Error, Report, Sessions, Status, TouchAnswer, TouchResult, touch::judge};
use crate::{
    state::{Activity, Hints, Moment, SessionRef},
    store::Session,
};

impl Sessions {
    /// A touch that the store cannot be told of now: it is remembered. No later expire time is promised than was before.
    pub(super) fn touch_locally(
        &self,
        reference: SessionRef,
        activity: Activity,
        hints: Option<&Hints<'_>>,
        ago: Duration,
        moment: Moment,
    ) -> Result<TouchAnswer, Error> {
        let session = self.known_locally(reference, moment)?;
        let verdict = judge(&session, &session.limits(), activity, hints);
        if verdict.counts {
            self.store.remember_activity(reference, moment.now - ago);
        }
        Ok(TouchAnswer {
            status: self.local_status(&session, moment),
            result: if verdict.counts {
                TouchResult::Pending
            } else {
                TouchResult::Ignored
            },
            rule: verdict.rule,
        })
    }

    /// What was last known of a session.
    pub(super) fn report_locally(&self, reference: SessionRef, moment: Moment) -> Result<Report, Error> {
        let session = self.known_locally(reference, moment)?;
        let mut report = session.read(|view| Report::live(reference, view, moment));
        report.status.local = true;
        Ok(report)
    }

    fn known_locally(&self, reference: SessionRef, moment: Moment) -> Result<Arc<Session>, Error> {
        let known = self.store.remembered_live(reference, moment.now);
        known.ok_or_else(|| crate::store::Unavailable.into())
    }

    fn local_status(&self, session: &Session, moment: Moment) -> Status {
        let mut status = session.read(|view| Status::live(session.reference(), view, moment));
        status.local = true;
        status
    }
}
