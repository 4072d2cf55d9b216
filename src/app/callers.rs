//! The callers that the policy file knows, and the files of their tokens.

use std::{path::PathBuf, sync::Arc};

use parking_lot::Mutex;

use super::files::Files;
use crate::{
    config::{KnownCaller, read_callers},
    files,
    rpc::Callers,
};

/// Keeps the table of callers as the policy file and the token files say.
#[derive(Clone)]
pub(super) struct KnownCallers {
    callers: Arc<Callers>,
    /// As the policy file in force has them. Locked while files are read, so that what was read last is what is in force.
    known: Arc<Mutex<Vec<KnownCaller>>>,
}

impl KnownCallers {
    pub(super) fn new(known: Vec<KnownCaller>) -> Result<Self, String> {
        let callers = Arc::new(Callers::default());
        callers.replace(read_callers(&known)?);
        let known = Arc::new(Mutex::new(known));
        Ok(Self { callers, known })
    }

    /// The table.
    pub(super) fn table(&self) -> Arc<Callers> {
        Arc::clone(&self.callers)
    }

    /// The policy file knows these from now on, if `others` agree to what else it says. Answers whether they are others than before.
    pub(super) fn tell<T>(
        &self,
        callers: Vec<KnownCaller>,
        others: impl FnOnce() -> Result<T, String>,
    ) -> Result<(bool, T), String> {
        let mut known = self.known.lock();
        let table = read_callers(&callers)?;
        let agreed = others()?;
        let news = *known != callers;
        if news {
            *known = callers;
            self.callers.replace(table);
        }
        Ok((news, agreed))
    }

    /// Their token files, to be followed.
    pub(super) fn files(&self) -> Files {
        let (all, changed) = (self.clone(), self.clone());
        let contents = files::read_all(&self.token_files()).unwrap_or_default();
        Files::new(
            move || all.token_files(),
            &contents,
            move |_| {
                let known = changed.known.lock();
                changed.callers.replace(read_callers(&known)?);
                Ok(())
            },
        )
    }

    fn token_files(&self) -> Vec<PathBuf> {
        self.known
            .lock()
            .iter()
            .filter_map(KnownCaller::token_file)
            .cloned()
            .collect()
    }
}
