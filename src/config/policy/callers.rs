//! The tables `[[callers]]`: who may do what, whichever listener they come by.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;

use crate::{
    config::{listen::is_tenant, token_text},
    files,
    rpc::{Caller, CallerTable, KnownBy, VerbGroup},
};

const MOST_CALLERS: usize = 256;
const LONGEST_NAME: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KnownTable {
    certificate: Option<String>,
    token_file: Option<PathBuf>,
    uid: Option<u32>,
    tenants: Option<Vec<String>>,
    verbs: Vec<String>,
}

/// A caller, how it is known, and what it may do. A token is known by the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCaller {
    known_by: KnownBy<PathBuf>,
    may: Caller,
}

impl KnownCaller {
    /// The file of its tokens, if it is known by one.
    #[must_use]
    pub fn token_file(&self) -> Option<&PathBuf> {
        match &self.known_by {
            KnownBy::Token(path) => Some(path),
            _ => None,
        }
    }
}

/// Reads the token files of callers, and makes a table of them all.
pub fn read_callers(callers: &[KnownCaller]) -> Result<CallerTable, String> {
    let read = |(place, caller): (usize, &KnownCaller)| {
        let known_by = match &caller.known_by {
            KnownBy::Certificate(name) => KnownBy::Certificate(name.clone()),
            KnownBy::Uid(uid) => KnownBy::Uid(*uid),
            KnownBy::Token(path) => {
                let told = |error| format!("callers[{place}]: {error}");
                let contents = files::read_all(std::slice::from_ref(path)).map_err(told)?;
                KnownBy::Token(token_text(&contents).map_err(told)?.to_owned())
            }
        };
        Ok((known_by, caller.may.clone()))
    };
    let callers: Result<Vec<_>, String> = callers.iter().enumerate().map(read).collect();
    CallerTable::new(callers?)
}

pub(super) fn check(tables: Vec<KnownTable>) -> anyhow::Result<Vec<KnownCaller>> {
    if tables.len() > MOST_CALLERS {
        bail!("there are {} callers; at most {MOST_CALLERS} are allowed", tables.len());
    }
    let callers = tables.into_iter().enumerate();
    callers
        .map(|(place, table)| caller(table).with_context(|| format!("callers[{place}]")))
        .collect()
}

fn caller(table: KnownTable) -> anyhow::Result<KnownCaller> {
    let known_by = match (table.certificate, table.token_file, table.uid) {
        (Some(name), None, None) => {
            if !(1..=LONGEST_NAME).contains(&name.len()) {
                bail!("certificate must be a name of 1 to {LONGEST_NAME} bytes, as the certificate has it");
            }
            KnownBy::Certificate(name.into())
        }
        (None, Some(path), None) => {
            if !path.is_absolute() {
                bail!("token_file must be an absolute path");
            }
            KnownBy::Token(path)
        }
        (None, None, Some(uid)) => KnownBy::Uid(uid),
        _ => bail!("it must have one of certificate, token_file and uid, by which the caller is known"),
    };
    let words = match &known_by {
        KnownBy::Certificate(name) => format!("certificate {name}"),
        KnownBy::Token(path) => format!("token_file {}", path.display()),
        KnownBy::Uid(uid) => format!("uid {uid}"),
    };
    if table.verbs.is_empty() {
        bail!("verbs is empty: say which groups of verbs the caller may use, or leave the caller out");
    }
    let verbs = table.verbs.iter().map(|name| name.parse::<VerbGroup>());
    let tenants = table.tenants.unwrap_or_else(|| vec![String::new()]);
    if tenants.is_empty() {
        bail!("tenants is empty: leave it out for the tenant \"\", or name some");
    }
    if let Some(bad) = tenants.iter().find(|name| !is_tenant(name)) {
        bail!("tenants: {bad:?} must be at most 128 bytes of visible ASCII");
    }
    Ok(KnownCaller {
        known_by,
        may: Caller {
            known_by: words.into(),
            verbs: verbs
                .collect::<Result<_, _>>()
                .map_err(|error| anyhow!("verbs: {error}"))?,
            tenants: tenants.into_iter().map(Arc::from).collect(),
        },
    })
}
