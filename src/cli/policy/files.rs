//! Policy files on disk: read by name, and replaced whole, so that a daemon which watches them never sees half a file.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::config::Config;

/// Bytes of a file that is read: more, a reload would not take either.
const LARGEST: u64 = 1 << 20;
/// Mode of a file that is new.
const NEW: u32 = 0o644;

/// Where a file of a bundle lies.
pub(super) fn at(config: &Config, name: &str) -> PathBuf {
    let below = |folder: &Path, rest: &str| folder.join(rest);
    match (name.strip_prefix("schemas/"), name.strip_prefix("policies/")) {
        (Some(rest), _) => below(&config.schemas_dir, rest),
        (None, Some(rest)) => below(&config.policies_dir, rest),
        (None, None) => PathBuf::from(name),
    }
}

/// A file's text, or why there is none.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    text(File::open(path).map_err(failed)?).map_err(failed)
}

/// The text of a stream.
pub(super) fn text(source: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST { Err(io::Error::other("it is larger than 1 MiB")) } else { Ok(text) }
}

/// A text that is on disk beside the file whose place it will take.
pub(super) struct Prepared {
    temporary: NamedTempFile,
    target: PathBuf,
}

impl Prepared {
    /// Writes a file's new text. The file behind a link is meant, and it keeps its mode and, where that can be, its owner.
    pub(super) fn new(path: &Path, text: &str) -> io::Result<Self> {
        let target = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            found => found?,
        };
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // A name that begins with a dot is passed over by whoever reads the folder.
        let mut temporary = tempfile::Builder::new().prefix(".keyward-").tempfile_in(folder)?;
        temporary.write_all(text.as_bytes())?;
        let file = temporary.as_file();
        match fs::metadata(&target) {
            Ok(before) => {
                // Whoever may write into the folder and is not the owner becomes the owner: the text is what matters.
                let _ = fchown(file, Some(before.uid()), Some(before.gid()));
                file.set_permissions(Permissions::from_mode(before.mode() & 0o7777))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                file.set_permissions(Permissions::from_mode(NEW))?;
            }
            Err(error) => return Err(error),
        }
        file.sync_all()?;
        Ok(Self { temporary, target })
    }

    /// Puts it in the file's place, at once.
    pub(super) fn put(self) -> io::Result<()> {
        let Self { temporary, target } = self;
        temporary.persist(&target).map_err(|error| error.error)?;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_also_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.cedar"), folder.path().join("link.cedar"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("a.cedar", &link).unwrap();
        let prepared = Prepared::new(&link, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        prepared.put().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(link.is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        drop(Prepared::new(&file, "never").unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside it");
    }

    #[test]
    fn a_new_file_is_made_with_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tests/a.toml");
        Prepared::new(&file, "new").unwrap().put().unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, NEW);
    }
}
