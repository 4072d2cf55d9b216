//! The files of listeners: read anew when they change, while the old content stays in force if the new one is bad.

use std::{path::PathBuf, time::Duration};

use futures_util::future::join_all;
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tracing::{info, warn};

use crate::{
    files,
    reload::{Settling, in_time_or_told},
};

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
    /// What they were at the last look.
    names: String,
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
            names: names(&paths()),
            paths: Box::new(paths),
            looks: Settling::new(Some(Ok(hashes(contents)))),
            apply: Box::new(apply),
        }
    }

    /// Looks at them, and answers when to look again.
    fn look(&mut self, meter: &FileMeter) -> Duration {
        let paths = (self.paths)();
        self.names = names(&paths);
        let read = files::read_all(&paths);
        let now = read.as_ref().map(|contents| hashes(contents)).map_err(Clone::clone);
        let (news, nap) = self.looks.saw(now);
        if !news {
            return nap;
        }
        let applied = read.and_then(|contents| (self.apply)(&contents));
        let outcome = if applied.is_ok() { "applied" } else { "refused" };
        let files = &self.names;
        match applied {
            Ok(()) => info!(%files, "files of a listener changed: connections and calls from now on follow them"),
            Err(error) => warn!(%files, %error, "files of a listener are bad: what they said before stays in force"),
        }
        meter.0.get_or_create(&[("outcome", outcome)]).inc();
        nap
    }
}

fn names(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

fn hashes(contents: &[Vec<u8>]) -> Vec<blake3::Hash> {
    contents.iter().map(|content| blake3::hash(content)).collect()
}

/// Follows files until `stop` is done.
pub(super) async fn follow(followed: Vec<Files>, meter: FileMeter, stop: impl Future<Output = ()>) {
    // One that hangs holds up no other.
    let following = followed.into_iter().map(|files| follow_one(files, meter.clone()));
    tokio::select! {
        () = stop => {}
        _ = join_all(following) => {}
    }
}

async fn follow_one(mut followed: Files, meter: FileMeter) {
    loop {
        let (mut files, counts) = (followed, meter.clone());
        let names = files.names.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let nap = files.look(&counts);
            (files, nap)
        });
        let nap = match in_time_or_told(looked, &names).await {
            Ok((files, nap)) => {
                followed = files;
                nap
            }
            Err(error) => {
                warn!(%error, "files of a listener are not followed any more; restart the sidecar");
                return;
            }
        };
        tokio::time::sleep(nap).await;
    }
}
