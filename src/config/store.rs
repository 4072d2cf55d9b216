//! The shared store, as `serve` is told of it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::{ServeArgs, StoreArgs, read_key};
use crate::{
    files,
    store::shared::{FORMATS, Fingerprints, Outage, link},
};

/// A shared store, resolved and checked.
pub struct StoreConfig {
    /// Where it is and how to get in.
    pub link: link::Settings,
    /// The name that sidecars which share sessions have in common.
    pub namespace: String,
    /// The key that they have in common.
    pub master_key: Vec<u8>,
    /// Another one that is accepted beside it, while it is changed.
    pub other_key: Option<Vec<u8>>,
    /// How long one write of activity is good for; unset: by the policy.
    pub window: Option<Duration>,
    /// The format in which records are written.
    pub format: u32,
    /// What is served while it is away.
    pub outage: Outage,
}

impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig")
            .field("address", &self.link.address.to_string())
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// How long a call of the store may take.
const TIMEOUT: Duration = Duration::from_millis(250);

/// The longest window.
const LONGEST: Duration = Duration::from_secs(10);

impl StoreConfig {
    /// What identifies its keys.
    #[must_use]
    pub fn fingerprints(&self) -> Fingerprints {
        Fingerprints::of(&self.master_key, self.other_key.as_deref())
    }

    /// What the arguments of `serve` say; `None`: sessions are kept in memory.
    pub fn resolve(args: &ServeArgs) -> anyhow::Result<Option<Self>> {
        let Some(config) = Self::of(&args.shared, || {
            if args.dev {
                bail!(
                    "--dev moves this process' clock, which a shared store does not follow: use --store memory with it"
                );
            }
            if args.key_file.is_some() {
                bail!(
                    "--key-file is for --store memory: give a shared store's key as --store-key-file, the same to all sidecars"
                );
            }
            Ok(())
        })?
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            window: window(&args.store_window)?,
            format: args.store_format,
            outage: args.store_outage.into(),
            ..config
        }))
    }

    /// The store that the arguments of a command name, which is for a shared one.
    pub fn shared(args: &StoreArgs) -> anyhow::Result<Self> {
        let config = Self::of(args, || Ok(()))?;
        config.context(
            "--store is memory, of which there is nothing to say: name the shared store, as `serve` is told of it",
        )
    }

    fn of(args: &StoreArgs, also: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Option<Self>> {
        if args.store == "memory" {
            for (flag, given) in [
                ("--store-key-file", args.store_key_file.is_some()),
                ("--store-other-key-file", args.store_other_key_file.is_some()),
                ("--store-password-file", args.store_password_file.is_some()),
                ("--store-ca-file", args.store_ca_file.is_some()),
            ] {
                if given {
                    bail!("{flag} is for a shared store, and --store is memory: say which store, or leave it out");
                }
            }
            return Ok(None);
        }
        let address: link::Address = args
            .store
            .parse()
            .map_err(|error| anyhow::anyhow!("--store: {error}"))?;
        also()?;
        let Some(key) = &args.store_key_file else {
            bail!(
                "--store {address} needs --store-key-file: at least 32 random bytes that all sidecars of the namespace have in \
                 common (head -c 32 /dev/urandom > FILE)"
            );
        };
        let (master_key, other_key) = keys(key, args.store_other_key_file.as_deref())?;
        let text = |flag: &str, path: &Option<PathBuf>| -> anyhow::Result<Option<String>> {
            let Some(path) = path else { return Ok(None) };
            let read = files::read_text(path).with_context(|| format!("{flag} {} cannot be read", path.display()))?;
            let line = read.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                bail!("{flag} {} is empty", path.display());
            }
            Ok(Some(line.to_owned()))
        };
        Ok(Some(Self {
            link: link::Settings {
                address,
                password: text("--store-password-file", &args.store_password_file)?,
                sentinel_password: text("--store-sentinel-password-file", &args.store_sentinel_password_file)?,
                ca: text("--store-ca-file", &args.store_ca_file)?.map(String::into_bytes),
                timeout: TIMEOUT,
            },
            namespace: namespace(&args.store_namespace)?,
            master_key,
            other_key,
            window: None,
            format: *FORMATS.start(),
            outage: Outage::Degraded,
        }))
    }
}

fn keys(own: &Path, other: Option<&Path>) -> anyhow::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let key = read_key("--store-key-file", own)?;
    let other = other.map(|path| read_key("--store-other-key-file", path)).transpose()?;
    if other.as_ref() == Some(&key) {
        bail!(
            "--store-other-key-file has the same key as --store-key-file: give the one that takes its place, or that it took the \
             place of, or leave it out"
        );
    }
    Ok((key, other))
}

fn namespace(name: &str) -> anyhow::Result<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        bail!("--store-namespace {name:?} must be 1 to 64 letters, digits, `-`, `_` or `.`");
    }
    Ok(name.to_owned())
}

fn window(text: &str) -> anyhow::Result<Option<Duration>> {
    if text == "auto" {
        return Ok(None);
    }
    let window: humantime::Duration = text
        .parse()
        .with_context(|| format!("--store-window {text:?} must be auto or a duration like 500ms"))?;
    if *window > LONGEST {
        bail!("--store-window {text} must be at most 10s: sessions end so much later");
    }
    Ok(Some(*window))
}
