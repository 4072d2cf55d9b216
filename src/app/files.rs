//! The files of listeners: read anew when they change, while the old content stays in force if the new one is bad.

use std::{path::PathBuf, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tracing::{info, warn};

use crate::{config::read_files, reload::Settling};

/// Counts changes of files.
#[derive(Clone)]
pub(super) struct FileMeter(Family<[(&'static str, &'static str); 1], Counter>);

impl FileMeter {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let outcomes = Family::<[(&'static str, &'static str); 1], Counter>::default();
        registry.register(
            "listener_file_reloads",
            "Changes of a listener's certificates, authorities and tokens, by what became of them",
            outcomes.clone(),
        );
        for outcome in ["applied", "refused"] {
            drop(outcomes.get_or_create(&[("outcome", outcome)]));
        }
        Self(outcomes)
    }
}

/// Makes true what files say, or says what is wrong with it.
type Apply = Box<dyn Fn(&[Vec<u8>]) -> Result<(), String> + Send>;

/// Files that mean something together.
pub(super) struct Files {
    paths: Box<dyn Fn() -> Vec<PathBuf> + Send>,
    /// Not what is in them, for that may be secret.
    looks: Settling<Result<Vec<blake3::Hash>, String>>,
    apply: Apply,
}

impl Files {
    /// Files with what is in them, and what is to be done with other content.
    pub(super) fn new(
        paths: impl Fn() -> Vec<PathBuf> + Send + 'static,
        contents: &[Vec<u8>],
        apply: impl Fn(&[Vec<u8>]) -> Result<(), String> + Send + 'static,
    ) -> Self {
        Self {
            paths: Box::new(paths),
            looks: Settling::new(Some(Ok(hashes(contents)))),
            apply: Box::new(apply),
        }
    }

    /// Looks at them, and answers when to look again.
    fn look(&mut self, meter: &FileMeter) -> Duration {
        let paths = (self.paths)();
        let read = read_files(&paths);
        let now = read.as_ref().map(|contents| hashes(contents)).map_err(Clone::clone);
        let (news, nap) = self.looks.saw(now);
        if !news {
            return nap;
        }
        let applied = read.and_then(|contents| (self.apply)(&contents));
        let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        let (files, outcome) = (names.join(", "), if applied.is_ok() { "applied" } else { "refused" });
        match applied {
            Ok(()) => info!(%files, "files of a listener changed: connections and calls from now on follow them"),
            Err(error) => warn!(%files, %error, "files of a listener are bad: what they said before stays in force"),
        }
        meter.0.get_or_create(&[("outcome", outcome)]).inc();
        nap
    }
}

fn hashes(contents: &[Vec<u8>]) -> Vec<blake3::Hash> {
    contents.iter().map(|content| blake3::hash(content)).collect()
}

/// Follows files until `stop` is done.
pub(super) async fn follow(mut followed: Vec<Files>, meter: FileMeter, stop: impl Future<Output = ()>) {
    if followed.is_empty() {
        return;
    }
    tokio::pin!(stop);
    loop {
        let (files, counts) = (followed, meter.clone());
        // A file system may take long.
        let looked = tokio::task::spawn_blocking(move || {
            let mut files = files;
            let naps = files.iter_mut().map(|file| file.look(&counts));
            let nap = naps.min().unwrap_or_default();
            (files, nap)
        });
        let nap = match looked.await {
            Ok((files, nap)) => {
                followed = files;
                nap
            }
            Err(error) => {
                warn!(%error, "the files of listeners are not followed any more; restart the sidecar");
                return;
            }
        };
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(nap) => {}
        }
    }
}
