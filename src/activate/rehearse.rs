//! What would become of an edit: everything that an activation does but the activation.
//!
//! The same steps as `Activator::bring` takes, on the revision in force with changes laid over it. Nothing of it is
//! kept, and nobody who waits for the turn waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compare::Comparison;
use super::vet::{Failure, on_thread};
use super::{Activator, examples};
use crate::child::TRIED_STACK;
use crate::policy::{Bundle, Digest, Rejection, Revision};
use crate::prove::Proof;

/// What became of an edit.
pub struct Rehearsal {
    /// The digest of the files with the changes.
    pub digest: Digest,
    /// What is wrong, if they would be refused.
    pub rejection: Option<Rejection>,
    /// How many examples came true, and how many did not; none where they could not be run.
    pub examples: Option<(usize, usize)>,
    /// What is proven, where it came so far.
    pub proof: Option<Proof>,
    /// What would be different, where it came so far.
    pub comparison: Option<Comparison>,
    /// What the files make, where it came so far.
    pub revision: Option<Arc<Revision>>,
}

impl Activator {
    /// The files of the revision in force, with changes laid over them.
    ///
    /// # Errors
    /// [`Rejection`] of changes that no folder could hold.
    pub fn edited(&self, changes: BTreeMap<String, Option<String>>) -> Result<Bundle, Rejection> {
        self.current.load().bundle().with(changes)
    }

    /// What would become of these files.
    ///
    /// # Errors
    /// [`Rejection`] of a check that could not be made.
    pub async fn rehearse(&self, bundle: Bundle) -> Result<Rehearsal, Rejection> {
        let mut rehearsal = Rehearsal {
            digest: bundle.digest(),
            rejection: None,
            examples: None,
            proof: None,
            comparison: None,
            revision: None,
        };
        let before = self.current.load_full();
        let revision = match self.vetter.vet(&bundle).await {
            Ok(revision) => Arc::new(revision),
            Err(Failure::Unchecked(rejection)) => return Err(rejection),
            Err(Failure::Refused(rejection)) => {
                // A child came to the examples, which are told of one by one, so that the same can be done here.
                if rejection.problems.iter().all(|problem| problem.file.starts_with("policies/tests/")) {
                    rehearsal.examples = tried(bundle, None).await;
                }
                return Ok(Rehearsal { rejection: Some(rejection), ..rehearsal });
            }
        };
        rehearsal.examples = tried(bundle, Some(Arc::clone(&revision))).await;
        let (proof, rejection) = self.proven(&revision).await;
        rehearsal.comparison = Some(self.compare(before.bundle(), revision.bundle()).await);
        (rehearsal.proof, rehearsal.rejection, rehearsal.revision) = (Some(proof), rejection, Some(revision));
        Ok(rehearsal)
    }
}

/// How many examples of files that a child has built come true.
async fn tried(bundle: Bundle, revision: Option<Arc<Revision>>) -> Option<(usize, usize)> {
    let tried = on_thread(TRIED_STACK, move || {
        let revision = revision.map_or_else(|| Revision::build(&bundle).map(Arc::new), Ok)?;
        let examples = examples::read(&bundle, &revision)?;
        let failed = examples.iter().filter(|example| example.run(&revision).failure.is_some()).count();
        Ok((examples.len() - failed, failed))
    });
    tried.await.ok()
}
