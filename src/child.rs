//! This program, started again as a child, for work that could end a process or take too long.
//!
//! A child gets a question on standard input and answers on standard output. It has no environment, and dies with all that
//! it started when its time is up or when nobody waits for it any more.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::authorize::STACK;

/// Stack of a thread on which this program does what a child has survived on the stack of deciding threads, in bytes.
pub const TRIED_STACK: usize = 2 * STACK;

/// The program that is started.
#[derive(Debug, Clone)]
pub struct Child {
    program: PathBuf,
}

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, or the signal that ended it.
    pub status: ExitStatus,
    /// What it wrote to standard output, up to the length that was asked for.
    pub answer: Vec<u8>,
}

/// Why there is no end to tell of.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It took longer than it may, and was ended.
    #[error("it took longer than {} s", .0.as_secs())]
    TooSlow(Duration),
    /// The system would not have it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Ends a child and what it started, unless it has ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended just now.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Child {
    /// One that starts `program`, which is this program except in tests.
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// One that starts the running program again, even when its file was replaced meanwhile.
    pub fn of_this_program() -> Self {
        let magic = PathBuf::from("/proc/self/exe");
        Self::new(if magic.exists() { magic } else { std::env::current_exe().unwrap_or_default() })
    }

    /// Starts it with the subcommand `command`, and waits for its end. Of its answer, `longest` bytes are read.
    ///
    /// # Errors
    /// [`ChildError`] when it could not be started, or did not end within `limit`.
    pub async fn ask(
        &self,
        command: &str,
        question: Vec<u8>,
        longest: u64,
        limit: Duration,
    ) -> Result<Ended, ChildError> {
        let mut child = Command::new(&self.program)
            .arg(command)
            .env_clear()
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let ask = async move {
            if let Some(mut stdin) = stdin {
                // A child that died does not read on; its exit says more than this error.
                let _ = stdin.write_all(&question).await;
            }
        };
        let listen = async move {
            let mut answer = Vec::new();
            if let Some(stdout) = stdout {
                let _ = stdout.take(longest).read_to_end(&mut answer).await;
            }
            answer
        };
        let talk = async {
            let ((), answer) = tokio::join!(ask, listen);
            Ok(Ended { status: child.wait().await?, answer })
        };
        let ended = tokio::time::timeout(limit, talk).await.map_err(|_| ChildError::TooSlow(limit))?;
        group.0 = None;
        ended
    }
}

/// Lets this process, and what it starts, take no more memory than this, in bytes.
pub fn limit_memory(bytes: u64) {
    let limit = rustix::process::Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // Where it cannot be limited it is at least ended after a while.
    let _ = rustix::process::setrlimit(rustix::process::Resource::As, limit);
}
