//! Questions about policies that take a while, and the child that answers them.
//!
//! Compiling policies for a solver recurses as deep as they do, and the solver takes what time and memory it takes. So both
//! are in a child process with limits, and whatever becomes of it, the daemon goes on.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::child::{Child, ChildError, TRIED_STACK, limit_memory};
use crate::compare::{Comparison, compare};
use crate::config::{Guarantees, Policies};
use crate::policy::{Bundle, Revision};
use crate::prove::solver::{Missing, Session, Solver, Unproven};
use crate::prove::{Proof, prove};

/// The subcommand, hidden from help, that the child is started with.
pub const COMMAND: &str = "examine";
/// What the child may take beyond the solver's time, to read, to build and to write.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const LONGEST_ANSWER: u64 = 32 << 20;
/// Memory that the child may take, and its solver as well, in bytes.
const MEMORY: u64 = 2 << 30;

/// What is asked of a child.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Question {
    Prove { bundle: Bundle, solver: Solver, limit_ms: u64 },
    Compare { before: Bundle, after: Bundle, solver: Option<Solver>, limit_ms: u64 },
}

/// Starts children that examine revisions.
#[derive(Debug, Clone)]
pub struct Examiner {
    child: Child,
    solver: Result<Solver, Missing>,
    limit: Duration,
}

impl Examiner {
    /// One that asks the configured solver, if it is there.
    pub async fn new(child: Child, config: &Policies) -> Self {
        Self { child, solver: Solver::find(&config.solver).await, limit: config.proof_limit() }
    }

    /// Why it has no solver.
    pub fn missing(&self) -> Option<&Missing> {
        self.solver.as_ref().err()
    }

    /// The solver's name and version, or why there is none, in a line.
    pub fn solver_told(&self) -> String {
        match &self.solver {
            Ok(solver) => format!("{} ({})", solver.version, solver.program.display()),
            Err(missing) => format!("none: {missing}"),
        }
    }

    /// What can be proven of a revision, as far as it is to be.
    pub async fn prove(&self, revision: &Revision, guarantees: Guarantees) -> Proof {
        let proof = self.prove_files(revision.bundle(), guarantees).await;
        proof.unwrap_or_else(|why| Proof::none(revision, &why))
    }

    /// The same of files of which it is not known yet whether they are good.
    ///
    /// # Errors
    /// [`Unproven`] when nothing is known: of whatever the files make.
    pub async fn prove_files(&self, bundle: &Bundle, guarantees: Guarantees) -> Result<Proof, Unproven> {
        match &self.solver {
            Ok(solver) if guarantees != Guarantees::EnforceOnly => {
                let (bundle, solver) = (bundle.clone(), solver.clone());
                self.ask(&Question::Prove { bundle, solver, limit_ms: self.limit_ms() }).await
            }
            _ => Err(Unproven::NotAsked),
        }
    }

    /// What it means that a revision takes the place of another.
    ///
    /// # Errors
    /// [`Unproven`] when the child did not live to tell.
    pub async fn compare(&self, before: &Bundle, after: &Bundle) -> Result<Comparison, Unproven> {
        let (before, after) = (before.clone(), after.clone());
        let solver = self.solver.clone().ok();
        self.ask(&Question::Compare { before, after, solver, limit_ms: self.limit_ms() }).await
    }

    fn limit_ms(&self) -> u64 {
        u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX)
    }

    async fn ask<T: for<'de> Deserialize<'de>>(&self, question: &Question) -> Result<T, Unproven> {
        let failed = |error: &dyn std::fmt::Display| Unproven::Failed(error.to_string());
        let question = serde_json::to_vec(question).map_err(|error| failed(&error))?;
        let ended = match self.child.ask(COMMAND, question, LONGEST_ANSWER, self.limit + GRACE).await {
            Ok(ended) => ended,
            Err(ChildError::TooSlow(_)) => return Err(Unproven::TimeLimit),
            Err(ChildError::Io(error)) => return Err(failed(&error)),
        };
        if !ended.status.success() {
            return Err(failed(&format_args!("the process that examines policies ended with {}", ended.status)));
        }
        serde_json::from_slice(&ended.answer).map_err(|error| failed(&error))
    }
}

/// The child's side: reads a question from `input`; the answer, to be printed.
///
/// # Errors
/// What is wrong with the question, in words.
pub fn answer_as_child(input: impl Read + Send + 'static) -> Result<serde_json::Value, String> {
    limit_memory(MEMORY);
    let work = move || {
        let question: Question = serde_json::from_reader(input).map_err(|error| error.to_string())?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(answer(question))
    };
    let thread = std::thread::Builder::new().stack_size(TRIED_STACK).spawn(work).map_err(|error| error.to_string())?;
    thread.join().map_err(|_| "the policies make the compiler panic".to_owned())?
}

async fn answer(question: Question) -> Result<serde_json::Value, String> {
    let build = |bundle: &Bundle| Revision::build(bundle).map(Arc::new).map_err(|rejection| rejection.to_string());
    let session = |solver, limit_ms| Session::new(solver, Duration::from_millis(limit_ms));
    let answer = match question {
        Question::Prove { bundle, solver, limit_ms } => {
            serde_json::to_value(prove(&build(&bundle)?, &mut session(solver, limit_ms)).await)
        }
        Question::Compare { before, after, solver, limit_ms } => {
            let mut session = solver.map(|solver| session(solver, limit_ms));
            let limit = Duration::from_millis(limit_ms);
            serde_json::to_value(compare(&build(&before)?, &build(&after)?, session.as_mut(), limit).await)
        }
    };
    answer.map_err(|error| error.to_string())
}
