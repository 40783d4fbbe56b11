//! The text of all schema and policy files, read at one time.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::management;
use super::revision::reject;
use super::{Digest, Problem, Rejection};

/// Bytes of one file.
const LARGEST_FILE: u64 = 1 << 20;
/// Bytes of all files together.
const LARGEST_BUNDLE: usize = 8 << 20;
/// Files of both folders together.
const MOST_FILES: usize = 1_000;
/// Entries of both folders together, those that are none of ours included: more is a link to somewhere else.
const MOST_ENTRIES: usize = 10_000;
/// Folders within folders.
const DEEPEST: usize = 8;
/// How often the files are read until two readings agree.
const READINGS: usize = 5;

/// Every schema, policy and policy-test file by its relative path, `schemas/…` or `policies/…`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bundle {
    files: BTreeMap<String, String>,
}

impl Bundle {
    /// A bundle of texts that are at hand. The copy of Keyward's own schema is none of them: the program brings it.
    pub fn from_files(files: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { files: files.into_iter().filter(|(path, _)| path != management::SCHEMA_FILE).collect() }
    }

    /// Reads `*.cedarschema` below `schemas` (but for the copy of Keyward's own), and `*.cedar` and `tests/*.toml` below `policies`.
    ///
    /// Names that begin with a dot are passed over: editors' and Kubernetes' own. The folders are read until
    /// two readings agree, so that a save in the middle is not taken for the whole.
    ///
    /// # Errors
    /// [`Rejection`] naming the file or folder that is missing, empty, too large, no UTF-8 or not readable.
    pub fn read(schemas: &Path, policies: &Path) -> Result<Self, Rejection> {
        let mut last = read_once(schemas, policies)?;
        for _ in 0..READINGS {
            let again = read_once(schemas, policies)?;
            if again == last {
                return Ok(last);
            }
            last = again;
        }
        Err(one(Problem::general(
            "the files keep changing while they are read".into(),
            "they are read again once they are quiet",
        )))
    }

    /// The digest of paths and contents.
    pub fn digest(&self) -> Digest {
        let mut sha = sha2::Sha256::new();
        for (path, text) in &self.files {
            // Lengths first, so that no two bundles spell the same bytes.
            sha.update((path.len() as u64).to_be_bytes());
            sha.update(path);
            sha.update((text.len() as u64).to_be_bytes());
            sha.update(text);
        }
        Digest::of(sha.finalize().into())
    }

    /// Whether a file of this path, `schemas/…` or `policies/…`, would be one of a bundle's.
    pub fn takes(path: &str) -> bool {
        let is_hidden = path.split('/').any(|segment| segment.starts_with('.'));
        is_ours(path) && !is_hidden && path != management::SCHEMA_FILE
    }

    /// The same with changes laid over it: a text is a file's new one, and none removes it.
    ///
    /// # Errors
    /// [`Rejection`] of what a folder could not hold, or reading it would refuse.
    pub fn with(&self, changes: BTreeMap<String, Option<String>>) -> Result<Self, Rejection> {
        let (mut files, mut problems) = (self.files.clone(), Vec::new());
        for (path, text) in changes {
            let mut problem = |message: &str, help: &str| {
                problems.push(Problem { help: Some(help.into()), ..Problem::in_file(&path, message) });
            };
            match text {
                _ if !is_a_place(&path) => {
                    problem(
                        "there can be no such file",
                        "name one as policies/docs-api.cedar or schemas/docs-api.cedarschema",
                    );
                }
                Some(text) if text.is_empty() => problem("the file is empty", "remove it, or write a comment into it"),
                Some(text) if text.len() as u64 > LARGEST_FILE => {
                    problem("the file is larger than 1 MiB", "split it");
                }
                Some(text) => drop(files.insert(path, text)),
                None => drop(files.remove(&path)),
            }
        }
        if files.len() > MOST_FILES || files.values().map(String::len).sum::<usize>() > LARGEST_BUNDLE {
            let message = format!("there are more than {MOST_FILES} files, or they are larger than 8 MiB together");
            problems.push(Problem::general(message, "remove what is not needed"));
        }
        if problems.is_empty() { Ok(Self::from_files(files)) } else { Err(reject(problems)) }
    }

    /// Every file, by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    fn ending(&self, suffix: &'static str) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(move |(path, _)| path.ends_with(suffix))
    }

    /// The schema files.
    pub fn schemas(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ending(".cedarschema")
    }

    /// The policy files, guarantees among them.
    pub fn policies(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ending(".cedar")
    }

    /// The policy tests.
    pub fn tests(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ending(".toml")
    }
}

fn one(problem: Problem) -> Rejection {
    Rejection { problems: vec![problem] }
}

fn read_once(schemas: &Path, policies: &Path) -> Result<Bundle, Rejection> {
    let mut reader = Reader { files: BTreeMap::new(), bytes: 0, entries: 0, problems: Vec::new() };
    reader.folder("schemas", schemas, &mut Vec::new());
    reader.folder("policies", policies, &mut Vec::new());
    let found = |suffix: &str| reader.files.keys().any(|path| path.ends_with(suffix));
    for (folder, at, suffix) in [("schemas", schemas, ".cedarschema"), ("policies", policies, ".cedar")] {
        if reader.problems.is_empty() && !found(suffix) {
            let message = format!("the folder {} holds no *{suffix} file", at.display());
            let help = "put the files back; the last good revision goes on serving";
            return Err(one(Problem { help: Some(help.into()), ..Problem::in_file(folder, message) }));
        }
    }
    if reader.problems.is_empty() { Ok(Bundle::from_files(reader.files)) } else { Err(reject(reader.problems)) }
}

struct Reader {
    files: BTreeMap<String, String>,
    bytes: usize,
    entries: usize,
    problems: Vec<Problem>,
}

/// Which folder it is, whatever path leads to it: its device and its number there.
type Identity = (u64, u64);

impl Reader {
    fn problem(&mut self, name: &str, message: impl Into<String>, help: &str) {
        self.problems.push(Problem { help: Some(help.to_owned()), ..Problem::in_file(name, message) });
    }

    /// Reads a folder; `above` are those that it is in.
    fn folder(&mut self, name: &str, at: &Path, above: &mut Vec<Identity>) {
        if above.len() > DEEPEST {
            return self.problem(name, format!("folders are nested more than {DEEPEST} deep"), "move the files up");
        }
        let identity = fs::metadata(at).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        if identity.is_some_and(|identity| above.contains(&identity)) {
            return self.problem(name, "the folder is within itself, by a link", "remove the symbolic link");
        }
        above.extend(identity);
        self.entries(name, at, above);
        above.pop();
    }

    fn entries(&mut self, name: &str, at: &Path, above: &mut Vec<Identity>) {
        let entries = match fs::read_dir(at) {
            Ok(entries) => entries,
            Err(error) => {
                return self.problem(
                    name,
                    format!("the folder {} cannot be read: {error}", at.display()),
                    "create it, or correct `schemas_dir` and `policies_dir` in the configuration",
                );
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    return self.problem(
                        name,
                        format!("the folder {} cannot be read: {error}", at.display()),
                        "check the disk",
                    );
                }
            };
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                // Said once, however many folders are left.
                if self.entries == MOST_ENTRIES + 1 {
                    self.problem(
                        name,
                        format!("there are more than {MOST_ENTRIES} files and folders"),
                        "look for a symbolic link that leads elsewhere, and remove it",
                    );
                }
                return;
            }
            let file_name = entry.file_name();
            if file_name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if self.files.len() >= MOST_FILES {
                return self.problem(name, format!("there are more than {MOST_FILES} files"), "merge or remove some");
            }
            let path = format!("{name}/{}", file_name.to_string_lossy());
            // Follows links: Kubernetes mounts every file as one.
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_dir() => self.folder(&path, &entry.path(), above),
                Ok(metadata) if metadata.is_file() && is_ours(&path) => self.file(path, &entry.path()),
                // Of what cannot be looked at, a link that leads nowhere or in a circle is a mistake; a file that was
                // renamed away since the listing is not, and the second reading tells.
                Err(error) if entry.path().is_symlink() || (is_ours(&path) && error.kind() != ErrorKind::NotFound) => {
                    self.problem(
                        &path,
                        format!("cannot be read: {error}"),
                        "a link that leads nowhere or in a circle? Remove it",
                    );
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn file(&mut self, name: String, at: &Path) {
        let mut bytes = Vec::new();
        // What would make a reader wait, such as a pipe that was put in the file's place, is an error instead.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(at);
        let read = opened.and_then(|file| {
            if file.metadata()?.is_file() {
                file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)
            } else {
                Err(std::io::Error::other("it is no ordinary file"))
            }
        });
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => {
                return self.problem(&name, format!("cannot be read: {error}"), "check the file's permissions");
            }
            Ok(_) => {}
        }
        if bytes.len() as u64 > LARGEST_FILE {
            return self.problem(
                &name,
                "the file is larger than 1 MiB",
                "split it, or remove it if it is none of ours",
            );
        }
        if bytes.is_empty() {
            return self.problem(
                &name,
                "the file is empty",
                "an editor in the middle of saving? Else remove it, or write a comment into it",
            );
        }
        self.bytes += bytes.len();
        if self.bytes > LARGEST_BUNDLE {
            return self.problem(&name, "the files are larger than 8 MiB together", "remove what is not needed");
        }
        match String::from_utf8(bytes) {
            Ok(text) => drop(self.files.insert(name, text)),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                self.problems.push(Problem::at(
                    &name,
                    &text,
                    at..at + 1,
                    "the file is not UTF-8 from here on",
                    "save it as UTF-8",
                ));
            }
        }
    }
}

/// Whether a path is one of the files that make a bundle.
fn is_ours(path: &str) -> bool {
    let ends = |suffix: &str| path.ends_with(suffix);
    if path.starts_with("schemas/") {
        ends(".cedarschema")
    } else {
        ends(".cedar") || (path.starts_with("policies/tests/") && ends(".toml"))
    }
}

/// Whether a reading of the folders could come by a file at this path, and would take it.
fn is_a_place(path: &str) -> bool {
    let names: Vec<&str> = path.split('/').collect();
    let is_name = |name: &&str| !name.is_empty() && !name.starts_with('.') && !name.contains(char::is_control);
    let is_within = matches!(names.as_slice(), ["schemas" | "policies", _, ..]) && names.len() <= DEEPEST + 1;
    is_within && path.len() <= 255 && names.iter().all(is_name) && is_ours(path)
}

#[cfg(test)]
mod tests {
    #[test]
    fn changes_are_laid_over_files_where_files_could_be() {
        let bundle = Bundle::from_files([("policies/a.cedar".to_owned(), "// a".to_owned())]);
        let with = |path: &str, text: Option<&str>| bundle.with([(path.to_owned(), text.map(Into::into))].into());
        let files = |bundle: Bundle| bundle.files().map(|(path, _)| path.to_owned()).collect::<Vec<_>>();
        assert_eq!(files(with("policies/b.cedar", Some("// b")).unwrap()), ["policies/a.cedar", "policies/b.cedar"]);
        assert_eq!(files(with("policies/a.cedar", None).unwrap()), [""; 0]);
        assert_eq!(with("policies/a.cedar", Some("// a")).unwrap(), bundle);
        for path in [
            "",
            "a.cedar",
            "policies/a.txt",
            "policies/../a.cedar",
            "/policies/a.cedar",
            "policies/.a.cedar",
            "schemas/a.cedar",
        ] {
            assert!(with(path, Some("// b")).is_err(), "{path}");
        }
        assert!(with("policies/b.cedar", Some("")).is_err());
        assert!(with("policies/b.cedar", Some(&"/".repeat(1 + (1 << 20)))).is_err());
    }

    use super::*;

    struct Folders {
        root: tempfile::TempDir,
    }

    impl Folders {
        fn good() -> Self {
            let folders = Self { root: tempfile::tempdir().unwrap() };
            folders.write("schemas/a.cedarschema", "namespace A {}");
            folders.write("policies/a.cedar", "permit (principal, action, resource);");
            folders.write("policies/tests/a.toml", "# none");
            folders
        }

        fn write(&self, path: &str, text: impl AsRef<[u8]>) {
            let path = self.root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn read(&self) -> Result<Bundle, Rejection> {
            Bundle::read(&self.root.path().join("schemas"), &self.root.path().join("policies"))
        }
    }

    #[test]
    fn a_bundle_is_what_the_folders_hold_and_its_digest_names_it() {
        let folders = Folders::good();
        folders.write("policies/.a.cedar.swp", "not ours");
        folders.write("policies/README.md", "not ours");
        folders.write("policies/other.toml", "not ours");
        let bundle = folders.read().unwrap();
        let paths: Vec<&str> = bundle.files().map(|(path, _)| path).collect();
        assert_eq!(paths, ["policies/a.cedar", "policies/tests/a.toml", "schemas/a.cedarschema"]);
        let before = bundle.digest();
        assert_eq!(before.to_string().parse(), Ok(before));
        folders.write("policies/a.cedar", "forbid (principal, action, resource);");
        assert_ne!(folders.read().unwrap().digest(), before);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_file_named() {
        type Damage = fn(&Folders);
        let cases: [(Damage, &str, &str); 10] = [
            (|folders| folders.write("policies/b.cedar", b"// \xff\n"), "policies/b.cedar:1:4", "UTF-8"),
            (|folders| folders.write("policies/b.cedar", vec![b' '; 50 << 20]), "policies/b.cedar", "1 MiB"),
            (
                |folders| fs::remove_file(folders.root.path().join("policies/a.cedar")).unwrap(),
                "policies",
                "no *.cedar",
            ),
            (|folders| fs::remove_dir_all(folders.root.path().join("schemas")).unwrap(), "schemas", "cannot be read"),
            (
                |folders| {
                    let loops = folders.root.path().join("policies/loop");
                    std::os::unix::fs::symlink(folders.root.path().join("policies"), loops).unwrap();
                },
                "policies/loop",
                "symbolic link",
            ),
            (
                |folders| {
                    let own = folders.root.path().join("policies/own.cedar");
                    std::os::unix::fs::symlink(&own, &own).unwrap();
                },
                "policies/own.cedar",
                "circle",
            ),
            (|folders| folders.write("policies/b.cedar", ""), "policies/b.cedar", "empty"),
            (
                |folders| {
                    for at in 0..10 {
                        let link = folders.root.path().join(format!("policies/many{at}"));
                        std::os::unix::fs::symlink(folders.root.path(), link).unwrap();
                    }
                },
                "policies/many",
                "by a link",
            ),
            (
                |folders| {
                    for at in 0..=MOST_ENTRIES {
                        folders.write(&format!("elsewhere/{at}"), "");
                    }
                    let link = folders.root.path().join("policies/elsewhere");
                    std::os::unix::fs::symlink(folders.root.path().join("elsewhere"), link).unwrap();
                },
                "policies/elsewhere",
                "more than 10000 files",
            ),
            (
                |folders| {
                    let link = folders.root.path().join("policies/pipe.cedar");
                    std::os::unix::fs::symlink("/proc/self/mem", link).unwrap();
                },
                "policies/pipe.cedar",
                "cannot be read",
            ),
        ];
        for (damage, place, message) in cases {
            let folders = Folders::good();
            damage(&folders);
            let rendered = folders.read().unwrap_err().render();
            assert!(rendered.contains(place) && rendered.contains(message), "{place}: {rendered}");
        }
    }

    #[test]
    fn a_folder_that_kubernetes_mounts_is_read_once() {
        let folders = Folders::good();
        let policies = folders.root.path().join("policies");
        folders.write("policies/..2026_01/b.cedar", "permit (principal, action, resource);");
        std::os::unix::fs::symlink("..2026_01", policies.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/b.cedar", policies.join("b.cedar")).unwrap();
        let bundle = folders.read().unwrap();
        assert_eq!(
            bundle.policies().map(|(path, _)| path).collect::<Vec<_>>(),
            ["policies/a.cedar", "policies/b.cedar"]
        );
    }
}
