//! Who and what a session is for.

use std::{collections::BTreeMap, fmt, sync::Arc};

use triomphe::ThinArc;

use super::name::SessionRef;

/// Who and what a session is for: carried by its events. Most sessions of a single-tenant site without subjects have nothing
/// to say here, and pay one word for it.
///
/// The bytes of the subject lie beside what few have, in one allocation: that is most of what a subject costs.
#[derive(Clone, Default)]
pub struct Identity(Option<ThinArc<Option<Box<More>>, u8>>);

/// What most sessions have not: a million subjects should not pay for the empty fields.
#[derive(Debug)]
struct More {
    tenant: Arc<str>,
    authentication_level: Box<str>,
    predecessor: Option<SessionRef>,
    labels: BTreeMap<String, String>,
}

impl Identity {
    /// An identity; an empty subject or level is none.
    #[must_use]
    pub fn new(
        tenant: Arc<str>,
        subject: &str,
        authentication_level: &str,
        labels: BTreeMap<String, String>,
        predecessor: Option<SessionRef>,
    ) -> Self {
        let plain = tenant.is_empty() && authentication_level.is_empty() && labels.is_empty() && predecessor.is_none();
        if plain && subject.is_empty() {
            return Self::default();
        }
        let more = || More {
            tenant,
            authentication_level: authentication_level.into(),
            predecessor,
            labels,
        };
        let more = (!plain).then(|| Box::new(more()));
        Self(Some(ThinArc::from_header_and_slice(more, subject.as_bytes())))
    }

    /// The identity of the session in whose place it goes on as `predecessor`'s successor.
    #[must_use]
    pub fn succeeding(&self, predecessor: SessionRef, subject: Option<&str>, level: Option<&str>) -> Self {
        let tenant = self.more().map_or_else(|| "".into(), |more| Arc::clone(&more.tenant));
        Self::new(
            tenant,
            subject.unwrap_or(self.subject()),
            level.unwrap_or(self.authentication_level()),
            self.labels(),
            Some(predecessor),
        )
    }

    fn more(&self) -> Option<&More> {
        self.0.as_ref()?.header.header.as_deref()
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.more().map_or("", |more| &more.tenant)
    }

    /// The subject, or empty.
    #[must_use]
    pub fn subject(&self) -> &str {
        let bytes = self.0.as_ref().map_or(&[][..], |known| &known.slice);
        // They were a str.
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// How strong the authentication was, in the caller's word, or empty.
    #[must_use]
    pub fn authentication_level(&self) -> &str {
        self.more().map_or("", |more| &more.authentication_level)
    }

    /// The session in whose place it goes on.
    #[must_use]
    pub fn predecessor(&self) -> Option<SessionRef> {
        self.more().and_then(|more| more.predecessor)
    }

    /// Whether it carries these labels, with these values.
    #[must_use]
    pub fn carries(&self, wanted: &BTreeMap<String, String>) -> bool {
        let labels = self.more().map(|more| &more.labels);
        let has = |(key, value): (&String, &String)| labels.is_some_and(|labels| labels.get(key) == Some(value));
        wanted.iter().all(has)
    }

    /// The caller's labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.more().map(|more| more.labels.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("subject", &self.subject())
            .field("more", &self.more())
            .finish()
    }
}
