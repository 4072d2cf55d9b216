//! Under which of two names a session begins, while the key of the store is changed and ids have two. The names lie in two
//! buckets, so no script sees both; a claim decides for all sidecars, whichever key is their own. Whoever has asked for it looks
//! whether the other name is free, and then begins the session soon or not at all: so of two that begin the same one with the other
//! name in mind, one is told the other's choice, or finds the session there.

use std::{sync::atomic::Ordering, time::Duration};

use super::{Shared, Unavailable, ask::text, commit::millis, lists::read_ref, scripts};
use crate::{state::SessionRef, store::Claim};

/// How long a claim holds after it was last asked for. A session begins within half of that, so that a rotation that was begun
/// with it is over by then too.
const HOLDS: Duration = Duration::from_secs(60);

impl Shared {
    pub(super) async fn claim_name(&self, wanted: SessionRef, other: SessionRef) -> Result<Claim, Unavailable> {
        if !self.joined.load(Ordering::Acquire) {
            return Err(Unavailable);
        }
        let asked = self.clock.now();
        let args = vec![wanted.to_string().into_bytes(), text(millis(HOLDS))];
        let keys = vec![self.names.claim(wanted, other)];
        let reply = self.call(&scripts::CLAIM, keys, args).await;
        let reply = reply.map_err(|fault| self.unavailable(&fault))?;
        let name = read_ref(&reply).filter(|name| [wanted, other].contains(name));
        Ok(Claim {
            name: name.ok_or(Unavailable)?,
            not_after: asked + HOLDS / 2,
        })
    }
}
