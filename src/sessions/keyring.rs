//! Ids and keys. While the key of a shared store is changed each sidecar knows two: sessions begin under its own, and those
//! that began under the other go on. So an id may have either of two refs. Only this room knows that: it answers one.

use std::sync::Arc;

use futures_util::future::join;
use parking_lot::Mutex;

use super::{Error, Name, Request, Sessions, page::Pages};
use crate::{
    event::{Position, TokenError, Tokens},
    state::{Asked, Keys, SessionRef},
    store::{Found, Session, Unavailable},
    time::Time,
};

/// The keys in force.
pub(super) struct Keyring {
    own: Key,
    other: Option<Key>,
}

/// What follows from one master key.
struct Key {
    keys: Keys,
    tokens: Tokens,
    pages: Pages,
}

impl Key {
    fn new(master: &[u8], epoch: &Arc<Mutex<[u8; 16]>>) -> Self {
        let keys = Keys::derive(master);
        Self {
            tokens: Tokens::sharing(keys.tokens(), Arc::clone(epoch)),
            pages: Pages::new(keys.pages()),
            keys,
        }
    }

    fn name(&self, tenant: &str, id: String) -> Named {
        let reference = self.keys.session_ref(tenant, &id);
        Named { id, reference }
    }
}

impl Keyring {
    pub(super) fn new(own: &[u8], other: Option<&[u8]>, epoch: &Arc<Mutex<[u8; 16]>>) -> Self {
        Self {
            own: Key::new(own, epoch),
            other: other.map(|master| Key::new(master, epoch)),
        }
    }

    /// The ref of a session that begins under our key.
    pub(super) fn own_ref(&self, name: Name<'_>) -> SessionRef {
        self.own.keys.session_ref(name.tenant, name.session_id)
    }

    fn other_ref(&self, name: Name<'_>) -> Option<SessionRef> {
        let other = self.other.as_ref()?;
        Some(other.keys.session_ref(name.tenant, name.session_id))
    }

    /// A request, to be remembered or recalled.
    pub(super) fn request(&self, request: Request<'_>) -> Asked {
        let form = |key: &Key| key.keys.request(request.id, request.content);
        Asked {
            request: form(&self.own),
            other: self.other.as_ref().map(form),
        }
    }

    /// A session that is to begin by an id that may have come before: the caller's, or one that follows from a key and a request.
    pub(super) fn newcomer(&self, tenant: &str, id: impl Fn(&Keys) -> String) -> Newcomer {
        let named = |key: &Key| key.name(tenant, id(&key.keys));
        Newcomer {
            own: named(&self.own),
            other: self.other.as_ref().map(named),
        }
    }

    /// A session that is to begin by an id that nobody has.
    pub(super) fn stranger(&self, tenant: &str, id: String) -> Newcomer {
        Newcomer {
            own: self.own.name(tenant, id),
            other: None,
        }
    }

    /// What resume tokens are made with.
    pub(super) fn tokens(&self) -> &Tokens {
        &self.own.tokens
    }

    /// What resume tokens are bound to, for a watch that has such a binding under a key.
    pub(super) fn bind(&self, binding: impl Fn(&Keys) -> [u8; 32]) -> [u8; 32] {
        binding(&self.own.keys)
    }

    /// Reads a resume token, made under either key.
    pub(super) fn open_token(&self, token: &str, binding: impl Fn(&Keys) -> [u8; 32]) -> Result<Position, TokenError> {
        let open = |key: &Key| key.tokens.open(token, &binding(&key.keys));
        match (open(&self.own), &self.other) {
            (Err(TokenError::Invalid), Some(other)) => open(other),
            (opened, _) => opened,
        }
    }

    /// The token of the page after this session.
    pub(super) fn issue_page(&self, after: SessionRef, binding: &[u8; 32]) -> String {
        self.own.pages.issue(after, binding)
    }

    /// Reads a page token, made under either key.
    pub(super) fn open_page(&self, token: &str, binding: &[u8; 32]) -> Option<SessionRef> {
        let mut keys = [Some(&self.own), self.other.as_ref()].into_iter().flatten();
        keys.find_map(|key| key.pages.open(token, binding))
    }
}

/// An id and the ref that it has under a key.
struct Named {
    id: String,
    reference: SessionRef,
}

impl Named {
    fn begins(&self, not_after: Option<Time>) -> Beginning {
        Beginning {
            session_id: self.id.clone(),
            reference: self.reference,
            not_after,
        }
    }
}

/// A session that is to begin.
pub(super) struct Newcomer {
    own: Named,
    /// The same under the other key. The id is another one if it follows from a key.
    other: Option<Named>,
}

impl Newcomer {
    /// How long its id is.
    pub(super) fn id_length(&self) -> usize {
        self.own.id.len()
    }

    /// Its id if it has this ref.
    pub(super) fn id_of(&self, reference: SessionRef) -> Option<&str> {
        let mut named = [Some(&self.own), self.other.as_ref()].into_iter().flatten();
        let named = named.find(|named| named.reference == reference);
        named.map(|named| named.id.as_str())
    }
}

/// The name under which a session may begin.
pub(super) struct Beginning {
    pub(super) session_id: String,
    pub(super) reference: SessionRef,
    /// Not after this; unset: at any time.
    pub(super) not_after: Option<Time>,
}

impl Sessions {
    /// The session of an id if it is at hand.
    pub(super) fn at_hand(&self, name: Name<'_>, now: Time) -> Option<Arc<Session>> {
        let own = self.store.at_hand(self.keyring.own_ref(name), now);
        own.or_else(|| self.store.at_hand(self.keyring.other_ref(name)?, now))
    }

    /// The ref by which the session of an id is known, or would be.
    pub async fn known_as(&self, name: Name<'_>) -> Result<SessionRef, Error> {
        let own = self.keyring.own_ref(name);
        let known = self.known(own, self.keyring.other_ref(name)).await?;
        Ok(known.unwrap_or(own))
    }

    /// The refs of which one is that of an id's session: it is not known which if it has not begun.
    pub async fn may_be_known_as(&self, name: Name<'_>) -> Result<Vec<SessionRef>, Error> {
        let (own, other) = (self.keyring.own_ref(name), self.keyring.other_ref(name));
        Ok(match self.known(own, other).await? {
            Some(known) => vec![known],
            None => [own].into_iter().chain(other).collect(),
        })
    }

    /// The ref by which a newcomer is known already, or would be.
    pub(super) async fn newcomer_is_known_as(&self, newcomer: &Newcomer) -> Result<SessionRef, Unavailable> {
        let own = newcomer.own.reference;
        let other = newcomer.other.as_ref().map(|other| other.reference);
        Ok(self.known(own, other).await?.unwrap_or(own))
    }

    /// The one of two refs that somebody has or had. Where there is no other key nobody is asked.
    async fn known(&self, own: SessionRef, other: Option<SessionRef>) -> Result<Option<SessionRef>, Unavailable> {
        match other {
            None => Ok(Some(own)),
            Some(other) => Box::pin(self.known_of(own, other)).await,
        }
    }

    async fn known_of(&self, own: SessionRef, other: SessionRef) -> Result<Option<SessionRef>, Unavailable> {
        let now = self.clock.now();
        // No id has two sessions: of which there is a copy, that is it.
        if let Some(copied) = [own, other].into_iter().find(|name| self.store.has_copy(*name, now)) {
            return Ok(Some(copied));
        }
        let is_known = |found: &Found| !matches!(found, Found::Unknown { .. });
        match join(self.store.find(own), self.store.find(other)).await {
            (Ok(found), _) if is_known(&found) => Ok(Some(own)),
            (_, Ok(found)) if is_known(&found) => Ok(Some(other)),
            (Ok(_), Ok(_)) => Ok(None),
            // While the store is away one may be served from what is known here.
            _ => {
                let remembered = |name: &SessionRef| self.store.remembered_live(*name, now).is_some();
                [own, other].into_iter().find(remembered).map(Some).ok_or(Unavailable)
            }
        }
    }

    /// The name under which a newcomer begins: its own; unless it is known by the other one, or somebody else is about to begin
    /// it by that.
    pub(super) async fn begins_as(&self, newcomer: &Newcomer) -> Result<Beginning, Unavailable> {
        let Newcomer { own, other } = newcomer;
        let Some(other) = other else {
            return Ok(own.begins(None));
        };
        if let Some(known) = Box::pin(self.known_of(own.reference, other.reference)).await? {
            // It does not begin: whoever tries is told why, and if it is forgotten this instant, to try again.
            let named = if known == own.reference { own } else { other };
            return Ok(named.begins(Some(self.clock.now())));
        }
        let claim = self.store.claim(own.reference, other.reference).await?;
        let (chosen, twin) = if claim.name == own.reference {
            (own, other)
        } else {
            (other, own)
        };
        // After the claim: from here on nobody begins it by the twin.
        let named = match self.store.find(twin.reference).await? {
            Found::Unknown { .. } => chosen,
            Found::Live(_) | Found::Ended(_) => twin,
        };
        Ok(named.begins(Some(claim.not_after)))
    }
}
