//! The first look at new files, in a child process.
//!
//! Cedar's parser recurses, and on hostile input it can run out of stack, which aborts the process and
//! cannot be caught. So new files are parsed, validated and tried on their examples first by this very
//! program, started again with [`COMMAND`]: it reads the bundle from standard input and says what is wrong on
//! standard output. It works on half the stack that the daemon gives the same work ([`TRIED_STACK`]), so that what
//! survives there survives here. A child that dies or takes too long is a refusal like any other.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::examples;
use crate::authorize::STACK;
use crate::authorize::manage::{Asking, Subject, manage};
use crate::child::{Child, ChildError, TRIED_STACK, limit_memory};
use crate::evaluation::Evaluation;
use crate::key::UserId;
use crate::people::{NewUser, User};
use crate::policy::{Bundle, Operation, Problem, Rejection, Revision};

/// The subcommand, hidden from help, that the child is started with.
pub const COMMAND: &str = "vet";
/// Stack of the thread that does the child's work, in bytes: no more than the threads have that decide.
const CHILD_STACK: usize = STACK;
/// Memory that the child may take, in bytes: what it needs, the daemon will need.
const CHILD_MEMORY: u64 = 768 << 20;
/// How long the child may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of the child's answer that are read; a refusal of a thousand problems is shorter.
const LONGEST_ANSWER: u64 = 4 << 20;

/// Why there is no revision.
#[derive(Debug)]
pub enum Failure {
    /// Something is wrong with the files; they will be refused again.
    Refused(Rejection),
    /// The check itself went wrong; another one may succeed.
    Unchecked(Rejection),
}

impl Failure {
    /// What to tell.
    pub fn into_rejection(self) -> Rejection {
        match self {
            Self::Refused(rejection) | Self::Unchecked(rejection) => rejection,
        }
    }
}

/// Starts children to look at files first.
#[derive(Debug, Clone)]
pub struct Vetter {
    child: Child,
}

impl Vetter {
    /// One that has this child check.
    pub fn new(child: Child) -> Self {
        Self { child }
    }

    /// One that starts the running program again.
    pub fn of_this_program() -> Self {
        Self::new(Child::of_this_program())
    }

    /// Has a child check the bundle, then builds it here.
    ///
    /// # Errors
    /// [`Failure`] with what the child found, or with how the child ended.
    pub async fn vet(&self, bundle: &Bundle) -> Result<Revision, Failure> {
        self.ask_child(bundle).await?;
        let bundle = bundle.clone();
        on_thread(TRIED_STACK, move || Revision::build(&bundle)).await
    }

    async fn ask_child(&self, bundle: &Bundle) -> Result<(), Failure> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            let message = format!("the check of the files could not be {what}: {error}");
            Failure::Unchecked(general(message, "nothing was changed; they are checked again"))
        };
        let question = serde_json::to_vec(bundle).map_err(|error| failed("asked for", &error))?;
        let ended = match self.child.ask(COMMAND, question, LONGEST_ANSWER, LIMIT).await {
            Ok(ended) => ended,
            Err(ChildError::TooSlow(limit)) => {
                return Err(Failure::Refused(general(
                    format!("checking the files took longer than {} s, so the check was stopped", limit.as_secs()),
                    "make the policies or the schema simpler; send SIGHUP to have them checked once more",
                )));
            }
            Err(ChildError::Io(error)) => return Err(failed("made", &error)),
        };
        match ended.status.code() {
            Some(0) => Ok(()),
            Some(1) => Err(serde_json::from_slice(&ended.answer)
                .map_or_else(|error| failed("understood", &error), Failure::Refused)),
            _ => Err(Failure::Refused(general(
                format!("the files make the policy parser crash, or take more memory than it may ({})", ended.status),
                "look for an expression that is nested or chained very deeply, and write it as several policies",
            ))),
        }
    }
}

/// The child's side: reads a bundle from `input`, checks it whole, and gives the rejection to be printed.
///
/// # Errors
/// [`Rejection`] with everything that is wrong.
pub fn check_as_child(input: impl std::io::Read + Send + 'static) -> Result<(), Rejection> {
    limit_memory(CHILD_MEMORY);
    let work = move || {
        let bundle: Bundle = serde_json::from_reader(input)
            .map_err(|error| general(format!("the bundle cannot be read: {error}"), "this is an internal error"))?;
        check(&bundle).map(drop)
    };
    match std::thread::Builder::new().stack_size(CHILD_STACK).spawn(work).map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        _ => Err(general("the files make the policy parser panic".into(), "report this with the files")),
    }
}

/// Builds a bundle's revision and runs its examples: all that a reload checks.
///
/// # Errors
/// [`Rejection`] with everything that is wrong.
pub fn check(bundle: &Bundle) -> Result<Arc<Revision>, Rejection> {
    let revision = Arc::new(Revision::build(bundle)?);
    examples::run(bundle, &revision)?;
    if locks_out(&revision) {
        let message = "no operator could change anything over the management API, these files least of all";
        let help = "permit it again; `keyward init` in an empty folder writes the shipped policies/management.cedar";
        return Err(general(message.into(), help));
    }
    Ok(revision)
}

/// Whether not even an operator is let do anything that changes something.
fn locks_out(revision: &Revision) -> bool {
    let now = Timestamp::UNIX_EPOCH;
    let new =
        NewUser { email: "operator@example.com".into(), name: "Operator".into(), operator: true, roles: [].into() };
    let Ok(operator) = User::create(new, UserId::EXAMPLE, now) else { return true };
    let asking = Asking { user: Some(&operator), address: None, now };
    let changes = |route: &str, operation: &Operation| !route.starts_with("GET ") && &*operation.name != "signIn";
    !revision.management().operations().any(|(route, operation)| {
        changes(route, operation)
            && operation.about.iter().any(|about| &**about == Subject::System.of_type())
            && matches!(manage(revision, &asking, operation, Subject::System), Evaluation::Permitted(_))
    })
}

/// Runs `work` on a thread of its own with a stack of `size` bytes.
pub(super) async fn on_thread<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> Result<T, Rejection> + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let spawned = std::thread::Builder::new().name("revision".into()).stack_size(size).spawn(move || {
        // Nobody listens any more only when the daemon is ending.
        let _ = sender.send(work());
    });
    let lost = || {
        Failure::Unchecked(general(
            "the revision could not be built".into(),
            "nothing was changed; they are checked again",
        ))
    };
    spawned.map_err(|_| lost())?;
    receiver.await.map_err(|_| lost())?.map_err(Failure::Refused)
}

/// A refusal that is about the files as a whole.
fn general(message: String, help: &str) -> Rejection {
    Rejection { problems: vec![Problem::general(message, help)] }
}
