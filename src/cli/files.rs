//! Schema and policy files that a command looks at by itself, without a daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Failure;
use crate::authorize::STACK;
use crate::policy::{Bundle, Rejection, Revision};

/// Stack for what is done with policies here: parsers take more than a decision does. Only what is used of it is memory.
const ROOMY: usize = 8 * STACK;

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
    pub(super) fn work_on<T: Send>(
        &self,
        work: impl FnOnce(&Bundle, &Arc<Revision>) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        on_stack(|| {
            let bundle = Bundle::read(&self.schemas, &self.policies).map_err(|rejection| refused(&rejection))?;
            let revision = Arc::new(Revision::build(&bundle).map_err(|rejection| refused(&rejection))?);
            work(&bundle, &revision)
        })?
    }
}

/// Does what recurses along expressions on a thread with more stack than any that passes `policy`'s bounds takes.
pub(super) fn on_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(ROOMY).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| Failure::new("this is a fault of Keyward; report it with the files"))
    })
}

/// The failure of a command on files that are refused.
pub(super) fn refused(rejection: &Rejection) -> Failure {
    Failure::new(format!("the files would be refused\n\n{}", rejection.render()))
}
