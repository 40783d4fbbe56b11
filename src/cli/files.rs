//! Schema and policy files that a command looks at by itself, without a daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Failure;
use crate::authorize::STACK;
use crate::policy::{Bundle, Rejection, Revision};

/// Stack of the thread that works on files: the parser takes more than a decision does.
const WORK_STACK: usize = 2 * STACK;

/// Where the files are.
#[derive(Clone)]
pub(super) struct Files {
    pub schemas: PathBuf,
    pub policies: PathBuf,
}

impl Files {
    /// Those of one folder that holds both.
    pub(super) fn below(folder: &Path) -> Self {
        Self { schemas: folder.join("schemas"), policies: folder.join("policies") }
    }

    /// Makes a revision of the files, and works on it.
    ///
    /// # Errors
    /// What is wrong with the files, and whatever `work` fails with.
    pub(super) fn work_on<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Bundle, &Arc<Revision>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let Self { schemas, policies } = self.clone();
        let all = move || {
            let bundle = Bundle::read(&schemas, &policies).map_err(|rejection| refused(&rejection))?;
            let revision = Arc::new(Revision::build(&bundle).map_err(|rejection| refused(&rejection))?);
            work(&bundle, &revision)
        };
        let thread = std::thread::Builder::new().stack_size(WORK_STACK).spawn(all)?;
        thread.join().unwrap_or_else(|_| Err(Failure::new("this is a fault of Keyward; report it with the files")))
    }
}

/// The failure of a command on files that are refused.
pub(super) fn refused(rejection: &Rejection) -> Failure {
    Failure::new(format!("the files would be refused\n\n{}", rejection.render()))
}
