//! The SMT solver: finding it, and asking it within a time limit.
//!
//! A [`Session`] belongs to one proof. Its solver is a process of its own, which is killed when a question takes too
//! long and when the session ends, and which ends by itself when nobody is left to kill it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cedar_policy_symcc::CedarSymCompiler;
use cedar_policy_symcc::err::Error;
use cedar_policy_symcc::solver::LocalSolver;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::Instant;

/// How long the solver may take to say its version.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// How much longer than its session the solver may live.
const GRACE: Duration = Duration::from_secs(1);

/// A solver that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Solver {
    /// Its program, by a path that needs no search.
    pub program: PathBuf,
    /// What it says of itself, for example `cvc5 1.0.3`.
    pub version: String,
}

/// Why there is no solver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// There is no such program.
    #[error("{0} is not there; install cvc5, or set `policies.solver` to where it is")]
    NotThere(String),
    /// It does not say what it should.
    #[error("{program} cannot be used: {what}")]
    Unusable {
        /// The program.
        program: String,
        /// What it did instead.
        what: String,
    },
}

impl Solver {
    /// The solver of this name on the `PATH`, or at this path.
    ///
    /// # Errors
    /// [`Missing`] when it is not there, or is none.
    pub async fn find(name: &Path) -> Result<Self, Missing> {
        let program = locate(name).ok_or_else(|| Missing::NotThere(name.display().to_string()))?;
        let unusable = |what: String| Missing::Unusable { program: program.display().to_string(), what };
        let mut command = Command::new(&program);
        command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(GREETING_LIMIT, command.output()).await {
            Ok(output) => output.map_err(|error| unusable(error.to_string()))?,
            Err(_) => return Err(unusable("it does not answer --version".into())),
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.split("cvc5 version ").nth(1).and_then(|rest| rest.split_whitespace().next());
        match version {
            Some(version) => Ok(Self { version: format!("cvc5 {version}"), program }),
            None => Err(unusable("it does not say that it is cvc5".into())),
        }
    }
}

fn locate(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.exists().then(|| name.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// Why something could be neither proven nor refuted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unproven {
    /// No solver is there, or it is not to be asked.
    NotAsked,
    /// It would have taken longer than it may.
    TimeLimit,
    /// The solver cannot say.
    Unknown,
    /// What the solver found is no request that can be made.
    NoRequest,
    /// The route is of another action, or about another type of thing, than before.
    AnotherRoute,
    /// It went wrong.
    Failed(String),
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("no solver was asked"),
            Self::TimeLimit => f.write_str("the time limit was reached"),
            Self::Unknown => f.write_str("the solver cannot say"),
            Self::NoRequest => f.write_str("what the solver found is no request that can be made"),
            Self::AnotherRoute => {
                f.write_str("the route is of another action or about another type of thing than before")
            }
            Self::Failed(what) => write!(f, "the solver failed: {what}"),
        }
    }
}

/// The compiler of questions to the solver that it asks.
pub type Compiler = CedarSymCompiler<LocalSolver>;

/// A solver at work, until a deadline.
pub struct Session {
    solver: Solver,
    deadline: Instant,
    /// Started with the first question, and anew after one that went wrong.
    running: Option<Compiler>,
    /// Questions that were asked.
    pub questions: usize,
}

impl Session {
    /// One that may take this long, all questions together.
    pub fn new(solver: Solver, limit: Duration) -> Self {
        Self { solver, deadline: Instant::now() + limit, running: None, questions: 0 }
    }

    /// Asks one question.
    ///
    /// # Errors
    /// [`Unproven`] when there is no answer.
    pub async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&mut Compiler) -> Result<T, Error>,
    ) -> Result<T, Unproven> {
        if Instant::now() >= self.deadline {
            return Err(Unproven::TimeLimit);
        }
        let mut compiler = match self.running.take() {
            Some(compiler) => compiler,
            None => self.start()?,
        };
        self.questions += 1;
        match tokio::time::timeout_at(self.deadline, question(&mut compiler)).await {
            Ok(Ok(answer)) => {
                self.running = Some(compiler);
                Ok(answer)
            }
            Ok(Err(Error::SolverUnknown)) => {
                self.running = Some(compiler);
                Err(Unproven::Unknown)
            }
            Ok(Err(error)) => Err(Unproven::Failed(error.to_string())),
            Err(_) => Err(Unproven::TimeLimit),
        }
    }

    fn start(&self) -> Result<Compiler, Unproven> {
        let left = self.deadline.saturating_duration_since(Instant::now()) + GRACE;
        let mut command = Command::new(&self.solver.program);
        // It ends by itself, too, should whoever would kill it be killed.
        command.args(["--lang", "smt", &format!("--tlimit={}", left.as_millis())]).env_clear().kill_on_drop(true);
        let failed = |error: &dyn fmt::Display| Unproven::Failed(error.to_string());
        let solver = LocalSolver::from_command(&mut command).map_err(|error| failed(&error))?;
        CedarSymCompiler::new(solver).map_err(|error| failed(&error))
    }
}
