//! Who and what a session is for.

use std::{collections::BTreeMap, sync::Arc};

use super::name::SessionRef;

/// Who and what a session is for: carried by its events. Most sessions of a single-tenant site without subjects have nothing
/// to say here, and pay one word for it.
#[derive(Debug, Clone, Default)]
pub struct Identity(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    tenant: Arc<str>,
    subject: Box<str>,
    authentication_level: Box<str>,
    predecessor: Option<SessionRef>,
    #[expect(
        clippy::box_collection,
        reason = "most have none, and a million of them pay for the empty map"
    )]
    labels: Option<Box<BTreeMap<String, String>>>,
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
        let nothing = subject.is_empty() && authentication_level.is_empty() && predecessor.is_none();
        if tenant.is_empty() && labels.is_empty() && nothing {
            return Self::default();
        }
        Self(Some(Arc::new(Known {
            tenant,
            subject: subject.into(),
            authentication_level: authentication_level.into(),
            predecessor,
            labels: (!labels.is_empty()).then(|| Box::new(labels)),
        })))
    }

    /// The identity of the session in whose place it goes on as `predecessor`'s successor.
    #[must_use]
    pub fn succeeding(&self, predecessor: SessionRef, subject: Option<&str>, level: Option<&str>) -> Self {
        let tenant = self
            .0
            .as_ref()
            .map_or_else(|| "".into(), |known| Arc::clone(&known.tenant));
        Self::new(
            tenant,
            subject.unwrap_or(self.subject()),
            level.unwrap_or(self.authentication_level()),
            self.labels(),
            Some(predecessor),
        )
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.0.as_ref().map_or("", |known| &known.tenant)
    }

    /// The subject, or empty.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.0.as_ref().map_or("", |known| &known.subject)
    }

    /// How strong the authentication was, in the caller's word, or empty.
    #[must_use]
    pub fn authentication_level(&self) -> &str {
        self.0.as_ref().map_or("", |known| &known.authentication_level)
    }

    /// The session in whose place it goes on.
    #[must_use]
    pub fn predecessor(&self) -> Option<SessionRef> {
        self.0.as_ref().and_then(|known| known.predecessor)
    }

    /// Whether it carries these labels, with these values.
    #[must_use]
    pub fn carries(&self, wanted: &BTreeMap<String, String>) -> bool {
        let labels = self.0.as_ref().and_then(|known| known.labels.as_deref());
        let has = |(key, value): (&String, &String)| labels.is_some_and(|labels| labels.get(key) == Some(value));
        wanted.iter().all(has)
    }

    /// The caller's labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.0.as_ref().and_then(|known| known.labels.as_deref());
        labels.cloned().unwrap_or_default()
    }
}
