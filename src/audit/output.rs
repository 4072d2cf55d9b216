//! Where the audit log is written to.

use std::{
    fmt, fs,
    io::{self, Read as _, Seek as _, SeekFrom, Write},
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

    /// Whether a target can be opened, as far as that is known without making it.
    pub fn check(target: &Target) -> io::Result<()> {
        let Target::File(path) = target else {
            return Ok(());
        };
        match fs::OpenOptions::new().append(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                fs::read_dir(folder.unwrap_or(Path::new("."))).map(drop)
            }
            opened => opened.map(drop),
        }
    }

    /// Somebody else's writer, for tests. `target` is what takes its place when it is opened anew.
    #[must_use]
    pub fn to(writer: Box<dyn Write + Send>, target: Target) -> Self {
        Self { target, writer }
    }

    /// Opens the file anew: the old one was moved away. What is no file stays as it is. Answers whether there is another one.
    pub(super) fn reopen(&mut self) -> io::Result<bool> {
        let Target::File(path) = &self.target else {
            return Ok(false);
        };
        self.writer = Box::new(append(path)?);
        Ok(true)
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
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    if ends_within_a_line(path) {
        // A process died while it wrote, or on a full disk: what follows must not be lost with its half line.
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Not if it cannot be read, or is something else than a file.
fn ends_within_a_line(path: &Path) -> bool {
    let last_byte = || {
        let mut last = [0];
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        io::Result::Ok(last[0])
    };
    let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
    is_file && last_byte().is_ok_and(|byte| byte != b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("session-sidecar-audit-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_half_line_that_is_left_over_takes_no_other_line_with_it() {
        let path = file("half");
        for (before, after) in [("", "new\n"), ("old\n", "old\nnew\n"), ("old\nha", "old\nha\nnew\n")] {
            fs::write(&path, before).unwrap();
            let mut output = Output::open(&Target::File(path.clone())).unwrap().unwrap();
            output.write(b"new\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_check_finds_what_opening_would_find_and_makes_nothing() {
        let path = file("check");
        Output::check(&Target::File(path.clone())).unwrap();
        assert!(!path.exists());
        for bad in [path.join("in-no-folder"), std::env::temp_dir()] {
            assert!(Output::check(&Target::File(bad.clone())).is_err());
            assert!(Output::open(&Target::File(bad)).is_err());
        }
    }
}
