//! What the policies say of one question, and remembering it.
//!
//! A decision asks Cedar, and Cedar's answer is a function of the key's record, the revision, the route and the
//! few attributes that the route's policies read. Where these are the same, so is the answer: it is
//! remembered beside the record ([`Memo`]) and forgotten with it, or when another revision is asked.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use cedar_policy::PolicyId;

use crate::key::Scope;

/// What the policies say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluation {
    /// These permit it and none forbids it.
    Permitted(Arc<[PolicyId]>),
    /// It is denied.
    Denied {
        /// These forbid it; none is named where simply nothing permits it.
        by: Arc<[PolicyId]>,
        /// The scopes, each of which alone would turn the denial into a permit.
        missing_scopes: Arc<[Scope]>,
    },
    /// These could not be evaluated; none is named where the question itself could not be put.
    Failed(Arc<[PolicyId]>),
}

/// Evaluations of one key's questions under one revision, by a number that the revision gives each question.
///
/// Reading takes no lock. Memory is bounded by the number of a revision's routes.
#[derive(Default)]
pub struct Memo(ArcSwapOption<Page>);

struct Page {
    /// Which revision the evaluations are of.
    generation: u64,
    evaluations: Box<[OnceLock<Arc<Evaluation>>]>,
}

impl Memo {
    /// The evaluation of question `number` of `questions` under the revision of this generation: the remembered one,
    /// or what `evaluate` says, which is then remembered.
    ///
    /// A failure is never remembered.
    pub fn get_or(
        &self,
        generation: u64,
        (number, questions): (usize, usize),
        evaluate: impl FnOnce() -> Evaluation,
    ) -> Arc<Evaluation> {
        let page = self.0.load();
        let current = page.as_ref().filter(|page| page.generation == generation);
        if let Some(found) = current.and_then(|page| page.evaluations.get(number)?.get()) {
            return Arc::clone(found);
        }
        let evaluation = Arc::new(evaluate());
        if matches!(*evaluation, Evaluation::Failed(_)) {
            return evaluation;
        }
        let place = |page: &Page| page.evaluations.get(number).map(|place| place.set(Arc::clone(&evaluation)));
        match current {
            // Another thread may have been first, with the same evaluation.
            Some(page) => drop(place(page)),
            // Another thread's new page may be lost to this one: its evaluations are made again.
            None => {
                let evaluations = (0..questions).map(|_| OnceLock::new()).collect();
                let page = Page { generation, evaluations };
                drop(place(&page));
                self.0.store(Some(Arc::new(page)));
            }
        }
        evaluation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(by: &str) -> Evaluation {
        Evaluation::Permitted([PolicyId::new(by)].into())
    }

    #[test]
    fn an_evaluation_is_remembered_for_its_question_and_revision_alone() {
        let memo = Memo::default();
        assert_eq!(*memo.get_or(1, (0, 2), || permitted("a")), permitted("a"));
        assert_eq!(*memo.get_or(1, (0, 2), || permitted("b")), permitted("a"));
        assert_eq!(*memo.get_or(1, (1, 2), || permitted("b")), permitted("b"));
        assert_eq!(*memo.get_or(2, (0, 2), || permitted("c")), permitted("c"));
        assert_eq!(*memo.get_or(2, (1, 2), || permitted("d")), permitted("d"));
        assert_eq!(
            *memo.get_or(2, (9, 2), || permitted("e")),
            permitted("e"),
            "a number out of range is not remembered"
        );
    }

    #[test]
    fn a_failure_is_never_remembered() {
        let memo = Memo::default();
        let failed = Evaluation::Failed([].into());
        assert_eq!(*memo.get_or(1, (0, 1), || failed.clone()), failed);
        assert_eq!(*memo.get_or(1, (0, 1), || permitted("a")), permitted("a"));
    }
}
