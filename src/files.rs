//! Files that configuration names, read whole: some have no size, and no end.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// A longer file is no key, certificate, token or policy.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// Reads a file, whichever it is now: through all symlinks.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(MOST_BYTES as u64 + 1)
        .read_to_end(&mut content)?;
    if content.len() > MOST_BYTES {
        let error = format!("it is longer than {MOST_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
    }
    Ok(content)
}

/// The same as text.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let not_text = || io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8");
    String::from_utf8(read(path)?).map_err(|_| not_text())
}

/// Reads several, all or none. The error names the file.
pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    let told = |path: &Path, error| format!("{} cannot be read: {error}", path.display());
    let contents = paths.iter().map(|path| read(path).map_err(|error| told(path, error)));
    contents.collect()
}
