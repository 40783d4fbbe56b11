//! What the policies say of one question, and remembering it.
//!
//! A decision asks Cedar, and Cedar's answer is a function of the key's record, the revision, the route and the
//! few attributes that the route's policies read. Where these are the same, so is the answer: it is
//! remembered beside the record ([`Memo`]) and forgotten with it, or when another revision is asked.

use std::sync::Arc;

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
/// Reading takes no lock. A key's few questions are remembered, eight at most, however many routes there are.
#[derive(Default)]
pub struct Memo(ArcSwapOption<Page>);

/// Questions that are remembered of one key.
const MOST: usize = 8;

struct Page {
    /// Which revision the evaluations are of.
    generation: u64,
    /// The newest last.
    evaluations: Vec<(usize, Arc<Evaluation>)>,
}

impl Memo {
    /// The evaluation of question `number` under the revision of this generation: the remembered one, or what
    /// `evaluate` says, which is then remembered.
    ///
    /// A failure is never remembered.
    pub fn get_or(&self, generation: u64, number: usize, evaluate: impl FnOnce() -> Evaluation) -> Arc<Evaluation> {
        let page = self.0.load();
        let known =
            page.as_ref().filter(|page| page.generation == generation).map_or(&[][..], |page| &page.evaluations);
        if let Some((_, found)) = known.iter().find(|(of, _)| *of == number) {
            return Arc::clone(found);
        }
        let evaluation = Arc::new(evaluate());
        if !matches!(*evaluation, Evaluation::Failed(_)) {
            let kept = known.get(known.len().saturating_sub(MOST - 1)..).unwrap_or_default();
            let evaluations = kept.iter().cloned().chain([(number, Arc::clone(&evaluation))]).collect();
            // Another thread's new page may be lost to this one: its evaluation is then made again.
            self.0.store(Some(Arc::new(Page { generation, evaluations })));
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
        assert_eq!(*memo.get_or(1, 0, || permitted("a")), permitted("a"));
        assert_eq!(*memo.get_or(1, 0, || permitted("b")), permitted("a"));
        assert_eq!(*memo.get_or(1, 1, || permitted("b")), permitted("b"));
        assert_eq!(*memo.get_or(2, 0, || permitted("c")), permitted("c"));
        assert_eq!(*memo.get_or(2, 1, || permitted("d")), permitted("d"));
        assert_eq!(*memo.get_or(1, 1, || permitted("e")), permitted("e"));
    }

    #[test]
    fn only_a_few_questions_are_remembered_the_newest_of_them() {
        let memo = Memo::default();
        for number in 0..1_000 {
            memo.get_or(1, number, || permitted("a"));
        }
        assert_eq!(memo.0.load().as_ref().unwrap().evaluations.len(), MOST);
        assert_eq!(*memo.get_or(1, 1_000 - MOST, || permitted("b")), permitted("a"));
        assert_eq!(*memo.get_or(1, 999 - MOST, || permitted("b")), permitted("b"));
    }

    #[test]
    fn a_failure_is_never_remembered() {
        let memo = Memo::default();
        let failed = Evaluation::Failed([].into());
        assert_eq!(*memo.get_or(1, 0, || failed.clone()), failed);
        assert_eq!(*memo.get_or(1, 0, || permitted("a")), permitted("a"));
    }
}
