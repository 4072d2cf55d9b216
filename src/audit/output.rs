//! Where the audit log is written to.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where the audit log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error, where the program's own log is too.
    Stderr,
    /// A file, to which lines are appended.
    File(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "off" => Self::Off,
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            "" => return Err("must be a file, stdout, stderr or off".to_owned()),
            path => Self::File(path.into()),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// An open target.
pub struct Output {
    target: Target,
    writer: Box<dyn Write + Send>,
}

impl Output {
    /// Opens a target; `None` if it is off.
    pub fn open(target: &Target) -> io::Result<Option<Self>> {
        let writer: Box<dyn Write + Send> = match target {
            Target::Off => return Ok(None),
            Target::Stdout => Box::new(io::stdout()),
            Target::Stderr => Box::new(io::stderr()),
            Target::File(path) => Box::new(append(path)?),
        };
        Ok(Some(Self {
            target: target.clone(),
            writer,
        }))
    }

    /// Somebody else's writer, for tests.
    #[must_use]
    pub fn to(writer: Box<dyn Write + Send>) -> Self {
        Self {
            target: Target::Stdout,
            writer,
        }
    }

    /// Opens the file anew: the old one was moved away. What is no file stays as it is.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Target::File(path) = &self.target {
            self.writer = Box::new(append(path)?);
        }
        Ok(())
    }

    /// Writes some of it, and answers how much: after an error the rest can be tried again, and no line comes twice.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.writer.flush()?;
        Ok(written)
    }
}

/// Appending writes of one line are whole even if others write too; only its owner may read who did what.
fn append(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}
