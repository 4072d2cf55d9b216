//! Callers that are known by what they show, whichever listener they come by: a certificate, a token, or the user of a process.

use std::{collections::HashMap, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{Caller, admission};

/// How a caller is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KnownBy<T> {
    /// By a name in its client certificate.
    Certificate(Box<str>),
    /// By a bearer token.
    Token(T),
    /// By the effective user of its process, at a Unix socket.
    Uid(u32),
}

/// What is at the other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// The user of its process, if it came by a Unix socket.
    pub uid: Option<u32>,
    /// The names in its certificate, if it has shown one.
    pub names: Vec<Box<str>>,
}

/// The callers that are known now.
#[derive(Default)]
pub struct Callers {
    table: ArcSwap<CallerTable>,
    changed: watch::Sender<()>,
}

impl Callers {
    /// These are known from now on, and no others. Who watches with rights that are gone is told so.
    pub fn replace(&self, table: CallerTable) {
        self.table.store(Arc::new(table));
        self.changed.send_replace(());
    }

    pub(super) fn now(&self) -> Guard<Arc<CallerTable>> {
        self.table.load()
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// Callers and what they may do, by their places in the file.
#[derive(Default)]
pub struct CallerTable {
    may: Vec<Arc<Caller>>,
    names: HashMap<Box<str>, usize>,
    uids: HashMap<u32, usize>,
    tokens: Vec<(blake3::Hash, usize)>,
}

impl CallerTable {
    /// Callers as a file has them, with the texts of their token files. No two may be known by the same.
    pub fn new(callers: impl IntoIterator<Item = (KnownBy<String>, Caller)>) -> Result<Self, String> {
        let mut table = Self::default();
        for (place, (known_by, may)) in callers.into_iter().enumerate() {
            let told = |error: String| format!("callers[{place}]: {error}");
            let before = match known_by {
                KnownBy::Certificate(name) => table.names.insert(name, place),
                KnownBy::Uid(uid) => table.uids.insert(uid, place),
                KnownBy::Token(text) => {
                    let hashes = admission::hashes(&text).map_err(|error| told(format!("token_file: {error}")))?;
                    let known = table.tokens.iter().find(|(known, _)| hashes.contains(known));
                    let before = known.map(|(_, place)| *place);
                    table.tokens.extend(hashes.into_iter().map(|hash| (hash, place)));
                    before
                }
            };
            if let Some(before) = before {
                return Err(told(format!("callers[{before}] is known by the same")));
            }
            table.may.push(Arc::new(may));
        }
        Ok(table)
    }

    /// Whether anybody is known by a token.
    pub(super) fn knows_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Who shows this token. All are compared, in constant time.
    pub(super) fn shows(&self, shown: &blake3::Hash) -> Option<usize> {
        let tokens = self.tokens.iter();
        tokens.fold(
            None,
            |found, (hash, place)| if hash == shown { Some(*place) } else { found },
        )
    }

    /// Who is at the other end of a connection; the first, if its certificate has names of several.
    pub(super) fn is(&self, peer: &Peer) -> Option<usize> {
        let by_name = peer.names.iter().filter_map(|name| self.names.get(name));
        let by_uid = peer.uid.and_then(|uid| self.uids.get(&uid));
        by_name.chain(by_uid).min().copied()
    }

    /// What a caller may do.
    pub(super) fn may(&self, place: usize) -> &Arc<Caller> {
        &self.may[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "c2Vzc2lvbi1zaWRlY2Fy";

    fn table(known_by: Vec<KnownBy<String>>) -> Result<CallerTable, String> {
        CallerTable::new(known_by.into_iter().map(|known_by| (known_by, Caller::default())))
    }

    #[test]
    fn the_first_that_a_connection_fits_is_its_caller() {
        let name = |name: &str| KnownBy::Certificate(name.into());
        let table = table(vec![name("b.example"), KnownBy::Uid(7), name("a.example")]).unwrap();
        let is = |uid, names: &[&str]| {
            let names = names.iter().map(|name| (*name).into()).collect();
            table.is(&Peer { uid, names })
        };
        assert_eq!(is(None, &["a.example", "b.example"]), Some(0));
        assert_eq!(is(Some(7), &["a.example"]), Some(1));
        assert_eq!(is(None, &["a.example"]), Some(2));
        assert_eq!(is(Some(8), &["c.example"]), None);
        assert_eq!(is(None, &[]), None);
    }

    #[test]
    fn no_two_are_known_by_the_same() {
        let token = |text: &str| KnownBy::Token(text.to_owned());
        let two = format!("another-token-of-it\n{TOKEN}\n");
        for twice in [
            vec![KnownBy::Uid(7), KnownBy::Uid(7)],
            vec![KnownBy::Certificate("a".into()), KnownBy::Certificate("a".into())],
            vec![token(TOKEN), token(&two)],
        ] {
            let error = table(twice).err().unwrap();
            assert_eq!(error, "callers[1]: callers[0] is known by the same");
        }
        let error = table(vec![KnownBy::Uid(7), token("short")]).err().unwrap();
        assert!(error.starts_with("callers[1]: token_file:"), "{error}");
        assert!(!error.contains("short"), "{error}");
    }
}
