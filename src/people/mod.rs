//! People: who they are, what they are called upon to manage, and how they prove that it is they.
//!
//! Everything here is pure. It takes values and the time and returns values; the only thing it asks of the
//! operating system is random bytes. What a role may do is said by policies, never here. Hashing a password is
//! slow by design, so callers run it off the runtime, and not more often at once than memory allows.

mod email;
mod error;
mod password;
mod role;
mod tally;
mod throttle;
mod user;

pub use email::Email;
pub use error::PeopleError;
pub use password::{Password, PasswordHash, verify, verify_nobody};
pub use role::{Role, UserState};
pub use throttle::{Attempt, RetryAfter, Throttle};
pub use user::{ApiToken, MOST_TOKENS, NewUser, User, keeps_an_operator};
